"""Conformance suites for what answers a query: candidate sources, filters, scorers, judges, selectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from endcap.core.protocols import BulkSource, CandidateSource, Filter, Judge, Scorer, Selector
from endcap.core.types import Candidates, Context, Float32Array, Int32Array, Int64Array, Placement, Query, Reason
from endcap.testing.contexts import a_context, a_stranger


class CandidateSourceConformance:
    """n_items: the size of the catalogue the source was made for. complete: False for a source that may overlook
    items (one over an approximate index)."""

    n_items: int
    complete: bool = True

    def make(self) -> CandidateSource:
        """The source under test, fitted."""
        raise NotImplementedError

    def load(self, folder: Path) -> CandidateSource:
        """The source as its loader reads it back from what `save` wrote."""
        raise NotImplementedError

    def contexts(self) -> Sequence[Context]:
        """Shoppers to try; the first few items of the catalogue are taken to exist."""
        return [
            a_stranger(),
            a_context([0, 1, 0]),
            a_context([1], viewed=[0, 1], cart=[0], placement=Placement.CART),
            a_context(viewed=[1], placement=Placement.ITEM, anchor=0),
        ]

    def test_has_a_name(self) -> None:
        source = self.make()
        assert isinstance(source, CandidateSource), "name, weigh, explain or save is missing"
        assert isinstance(source.name, str), "name is no str"
        assert source.name, "name is empty"

    def test_top_is_sorted_positive_distinct_and_typed(self) -> None:
        source = self.make()
        for context in self.contexts():
            items, scores = source.weigh(context).top(5)
            assert items.dtype == np.int32, f"items are {items.dtype}"
            assert scores.dtype == np.float32, f"scores are {scores.dtype}"
            assert items.shape == scores.shape, f"the shapes are {items.shape} and {scores.shape}"
            assert len(items) <= 5, f"{len(items)} items instead of at most 5"
            assert len(np.unique(items)) == len(items), "an item is proposed twice"
            assert ((items >= 0) & (items < self.n_items)).all(), "an item is not in the catalogue"
            assert np.isfinite(scores).all(), "a score is not finite"
            assert (scores > 0).all(), "an item without a positive score is proposed"
            assert (np.diff(scores) <= 0).all(), "the best does not come first"

    def test_a_longer_list_begins_with_the_shorter(self) -> None:
        source = self.make()
        for context in self.contexts():
            evidence = source.weigh(context)
            short, long = evidence.top(3)[0], evidence.top(6)[0]
            np.testing.assert_array_equal(short, long[: len(short)])

    def test_scores_agree_wherever_they_are_asked(self) -> None:
        source = self.make()
        everything = np.arange(self.n_items, dtype=np.int32)
        for context in self.contexts():
            evidence = source.weigh(context)
            items, scores = evidence.top(self.n_items)
            whole = evidence.at(everything)
            assert whole.dtype == np.float32, f"scores are {whole.dtype}"
            assert whole.shape == (self.n_items,), f"the shape is {whole.shape}"
            assert np.isfinite(whole).all(), "a score is not finite"
            np.testing.assert_allclose(whole[items], scores, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(evidence.at(everything[::-1]), whole[::-1], rtol=1e-4, atol=1e-6)
            if self.complete:
                assert set(items.tolist()) == set(np.flatnonzero(whole > 0).tolist()), "top overlooks a positive score"

    def test_depends_on_the_context_alone(self) -> None:
        source = self.make()
        everything = np.arange(self.n_items, dtype=np.int32)
        before = [source.weigh(context).at(everything) for context in self.contexts()]
        after = [source.weigh(context).at(everything) for context in reversed(self.contexts())][::-1]
        for first, again in zip(before, after, strict=True):
            np.testing.assert_array_equal(first, again)

    def test_leaves_the_context_as_it_was(self) -> None:
        source = self.make()
        for context, untouched in zip(self.contexts(), self.contexts(), strict=True):
            items, _ = source.weigh(context).top(3)
            for item in items.tolist():
                source.explain(context, item)
            for column in fields(context):
                np.testing.assert_array_equal(getattr(context, column.name), getattr(untouched, column.name))

    def test_reasons_are_its_own(self) -> None:
        source = self.make()
        for context in self.contexts():
            for item in range(self.n_items):
                reason = source.explain(context, item)
                if reason is None:
                    continue
                assert isinstance(reason, Reason), f"explain gave {reason!r}"
                assert reason.source == source.name, f"the reason names {reason.source!r}"
                assert reason.code, "the reason has no code"
                assert -1 <= reason.because < self.n_items, f"because of {reason.because}, which is no item"

    def test_comes_back_from_disk(self, tmp_path: Path) -> None:
        source = self.make()
        source.save(tmp_path)
        loaded = self.load(tmp_path)
        assert loaded.name == source.name, f"the name came back as {loaded.name!r}"
        everything = np.arange(self.n_items, dtype=np.int32)
        for context in self.contexts():
            scores = source.weigh(context).at(everything)
            np.testing.assert_allclose(loaded.weigh(context).at(everything), scores, rtol=1e-5, atol=1e-6)


class BulkSourceConformance(CandidateSourceConformance):
    """The same, and many contexts at once."""

    def make(self) -> BulkSource:
        """The source under test, fitted."""
        raise NotImplementedError

    def test_many_at_once_say_what_each_says_alone(self) -> None:
        source, contexts = self.make(), self.contexts()
        assert isinstance(source, BulkSource), "weigh_many is missing"
        together = source.weigh_many(contexts)
        assert len(together) == len(contexts), f"{len(together)} answers for {len(contexts)} contexts"
        everything = np.arange(self.n_items, dtype=np.int32)
        for one, context in zip(together, contexts, strict=True):
            alone = source.weigh(context).at(everything)
            np.testing.assert_allclose(one.at(everything), alone, rtol=1e-4, atol=1e-5)


class FilterConformance:
    """n_items: how many catalogue positions to ask about. query: what is asked with."""

    n_items: int = 20
    query: Query = Query(user_id="someone")

    def make(self) -> Filter:
        """The filter under test."""
        raise NotImplementedError

    def context(self) -> Context:
        return a_context([0, 1], cart=[2])

    def test_has_a_name(self) -> None:
        tested = self.make()
        assert isinstance(tested, Filter), "name or allowed is missing"
        assert isinstance(tested.name, str), "name is no str"
        assert tested.name, "name is empty"

    def test_answers_for_each_item(self) -> None:
        allowed = self.make().allowed(self.query, self.context(), np.arange(self.n_items, dtype=np.int32))
        assert allowed.dtype == np.bool_, f"the answer is {allowed.dtype}"
        assert allowed.shape == (self.n_items,), f"the shape is {allowed.shape}"

    def test_no_items_give_no_answers(self) -> None:
        allowed = self.make().allowed(self.query, self.context(), np.empty(0, np.int32))
        assert allowed.shape == (0,), f"the shape is {allowed.shape}"
        assert allowed.dtype == np.bool_, f"the answer is {allowed.dtype}"

    def test_judges_each_item_by_itself(self) -> None:
        tested, context = self.make(), self.context()
        items = np.arange(self.n_items, dtype=np.int32)
        whole = tested.allowed(self.query, context, items)
        mixed = np.random.default_rng(0).permutation(items)
        np.testing.assert_array_equal(tested.allowed(self.query, context, mixed), whole[mixed])
        alone = np.concatenate([tested.allowed(self.query, context, items[item : item + 1]) for item in items.tolist()])
        np.testing.assert_array_equal(alone, whole)


class ScorerConformance:
    """columns: how many features the scorer reads."""

    columns: int = 6

    def make(self) -> Scorer:
        """The scorer under test."""
        raise NotImplementedError

    def test_gives_one_finite_score_per_candidate(self) -> None:
        scorer = self.make()
        assert isinstance(scorer, Scorer), "score is missing"
        for n in (8, 1, 0):
            scores = self._score(scorer, np.arange(n))
            assert scores.dtype == np.float32, f"scores are {scores.dtype}"
            assert scores.shape == (n,), f"the shape is {scores.shape} for {n} candidates"
            assert np.isfinite(scores).all(), "a score is not finite"

    def test_order_of_candidates_does_not_matter(self) -> None:
        scorer = self.make()
        forwards = self._score(scorer, np.arange(8))
        backwards = self._score(scorer, np.arange(8)[::-1])
        np.testing.assert_allclose(backwards[::-1], forwards, rtol=1e-5, atol=1e-6)

    def _score(self, scorer: Scorer, order: Int64Array) -> Float32Array:
        draw = np.random.default_rng(0)
        features = draw.random((8, self.columns)).astype(np.float32)
        scores, ranks = draw.random((8, 2)).astype(np.float32), np.tile(np.arange(8, dtype=np.float32)[:, None], 2)
        candidates = Candidates.of(np.arange(8, dtype=np.int32)[order], scores[order], ranks[order], 8)
        return scorer.score(features[order], candidates)


class JudgeConformance:
    """history, candidates: texts the judge can read, the candidates distinct. tolerance: how far a logit may move with
    what is judged beside it (padded and quantised models move a little)."""

    history: Sequence[str] = ("green tea", "oat milk, 1 litre")
    candidates: Sequence[str] = ("oat milk, barista", "running shoes", "black tea", "USB-C charger 30 W")
    tolerance: float = 1e-3

    def make(self) -> Judge:
        """The judge under test."""
        raise NotImplementedError

    def test_gives_one_finite_logit_per_candidate(self) -> None:
        judge = self.make()
        assert isinstance(judge, Judge), "judge is missing"
        for n in (len(self.candidates), 1, 0):
            logits = judge.judge(self.history, self.candidates[:n])
            assert logits.dtype == np.float32, f"logits are {logits.dtype}"
            assert logits.shape == (n,), f"the shape is {logits.shape} for {n} candidates"
            assert np.isfinite(logits).all(), "a logit is not finite"

    def test_judges_each_candidate_by_itself(self) -> None:
        judge = self.make()
        together = judge.judge(self.history, self.candidates)
        alone = np.concatenate([judge.judge(self.history, [candidate]) for candidate in self.candidates])
        np.testing.assert_allclose(together, alone, atol=self.tolerance)
        backwards = judge.judge(self.history, list(reversed(self.candidates)))[::-1]
        np.testing.assert_allclose(together, backwards, atol=self.tolerance)

    def test_repeats_itself(self) -> None:
        judge = self.make()
        first, _ = judge.judge(self.history, self.candidates), judge.judge(self.history[:1], self.candidates)
        np.testing.assert_array_equal(judge.judge(self.history, self.candidates), first)

    def test_reads_histories_of_any_length(self) -> None:
        judge = self.make()
        for history in (self.history[:1], list(self.history) * 50):
            logits = judge.judge(history, self.candidates)
            assert np.isfinite(logits).all(), f"a logit is not finite after {len(history)} texts"

    def test_leaves_its_arguments_as_they_were(self) -> None:
        history, candidates = list(self.history), list(self.candidates)
        self.make().judge(history, candidates)
        assert history == list(self.history), "the history was written to"
        assert candidates == list(self.candidates), "the candidates were written to"


class SelectorConformance:
    """Positions 0 to 29 are taken to be in the catalogue."""

    def make(self) -> Selector:
        """The selector under test."""
        raise NotImplementedError

    def test_fills_no_more_than_asked(self) -> None:
        selector = self.make()
        assert isinstance(selector, Selector), "select is missing"
        for n in (0, 1, 5, 20):
            slate = selector.select(Query(n=n), _positions(range(20)), _positions([]))
            assert slate.dtype == np.int32, f"the slate is {slate.dtype}"
            assert len(slate) <= n, f"{len(slate)} items instead of at most {n}"

    def test_keeps_what_is_chosen_first(self) -> None:
        slate = self.make().select(Query(n=8), _positions(range(20)), _positions([17, 3]))
        assert slate[:2].tolist() == [17, 3], f"the slate begins with {slate[:2].tolist()}"

    def test_never_repeats_an_item(self) -> None:
        slate = self.make().select(Query(n=10), _positions(range(20)), _positions([0, 5]))
        assert len(np.unique(slate)) == len(slate), f"the slate repeats an item: {slate.tolist()}"

    def test_leaves_a_full_slate_alone(self) -> None:
        slate = self.make().select(Query(n=3), _positions(range(20)), _positions([9, 8, 7]))
        assert slate.tolist() == [9, 8, 7], f"the slate became {slate.tolist()}"

    def test_accepts_that_nothing_remains(self) -> None:
        slate = self.make().select(Query(n=5), _positions([]), _positions([4]))
        assert slate[:1].tolist() == [4], f"the slate became {slate.tolist()}"
        assert len(slate) <= 5, f"{len(slate)} items instead of at most 5"

    def test_leaves_its_arguments_as_they_were(self) -> None:
        ranked, chosen = _positions(range(20)), _positions([19])
        self.make().select(Query(n=5), ranked, chosen)
        assert ranked.tolist() == list(range(20)), "the ranking was written to"
        assert chosen.tolist() == [19], "the choice was written to"


def _positions(items: Sequence[int]) -> Int32Array:
    return np.array(items, np.int32)
