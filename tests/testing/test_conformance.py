"""The suites catch what breaks a promise: each broken object fails the test named beside it."""

import numpy as np
import polars as pl
import pytest

from endcap import testing
from endcap.core import protocols
from endcap.core.types import Reason
from endcap.testing import (
    FakeEncoder,
    FakeEventSource,
    FakeFilter,
    FakeIndex,
    FakeJudge,
    FakeScorer,
    FakeSelector,
    FakeSource,
)


class LongRows(FakeEncoder):
    def encode(self, contents):
        return super().encode(contents) * 2


class WideRows(FakeEncoder):
    def encode(self, contents):
        return super().encode(contents).astype(np.float64)


class BatchMean(FakeEncoder):
    def encode(self, contents):
        vectors = super().encode(contents) + super().encode(contents).sum(axis=0)
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


class OneForAll(FakeEncoder):
    def encode(self, contents):
        return super().encode(["same" for _ in contents])


class Altered(FakeSource):
    """A source whose evidence passes through `alter`."""

    def weigh(self, context):
        evidence = super().weigh(context)
        top, at = self.alter(evidence, context)
        return type("Evidence", (), {"top": staticmethod(top), "at": staticmethod(at)})()

    @classmethod
    def load(cls, folder):
        return cls(FakeSource.load(folder)._scores.tolist())


class WorstFirst(Altered):
    def alter(self, evidence, context):
        return lambda k: tuple(part[::-1] for part in evidence.top(k)), evidence.at


class WithZeros(Altered):
    def alter(self, evidence, context):
        whole = np.arange(8, dtype=np.int32)
        return lambda k: (whole[:k], np.maximum(evidence.at(whole)[:k], 0)), evidence.at


class Overlooking(Altered):
    def alter(self, evidence, context):
        return lambda k: tuple(part[: min(k, 2)] for part in evidence.top(k)), evidence.at


class TwoScales(Altered):
    def alter(self, evidence, context):
        return evidence.top, lambda items: evidence.at(items) * np.float32(2)


class Growing(Altered):
    def alter(self, evidence, context):
        return evidence.top, lambda items: evidence.at(items) + np.float32(len(self.asked))


class Scribbling(Altered):
    def alter(self, evidence, context):
        context.items[:] = 0
        return evidence.top, evidence.at


class OthersReasons(FakeSource):
    def explain(self, context, item):
        return Reason("another", "code")


class Hasty(FakeSource):
    def weigh_many(self, contexts):
        return super().weigh_many(contexts[:1])


class Forgetful(FakeSource):
    @classmethod
    def load(cls, folder):
        return cls([0.0] * 8)


class ByPlace(FakeFilter):
    def allowed(self, query, context, items):
        return np.arange(len(items)) % 2 == 0


class Shortened(FakeFilter):
    def allowed(self, query, context, items):
        return super().allowed(query, context, items)[:-1]


class Centred(FakeScorer):
    def score(self, features, candidates):
        return np.arange(len(features), dtype=np.float32)


class Relative(FakeJudge):
    def judge(self, history, candidates):
        logits = super().judge(history, candidates)
        return logits - logits.mean(dtype=np.float32) if len(logits) else logits


class Moody(FakeJudge):
    asked = 0

    def judge(self, history, candidates):
        self.asked += 1
        return super().judge(history, candidates) + np.float32(self.asked)


class Certain(FakeJudge):
    def judge(self, history, candidates):
        return np.full(len(candidates), np.inf, np.float32)


class Overfull(FakeSelector):
    def select(self, query, ranked, chosen):
        return np.concatenate([chosen, ranked]).astype(np.int32)


class Forgetting(FakeSelector):
    def select(self, query, ranked, chosen):
        return ranked[: query.n]


class Farthest(FakeIndex):
    def search(self, vector, k):
        items, scores = super().search(-vector, k)
        return items, -scores


class Misaligned(FakeIndex):
    def search_many(self, vectors, k):
        return super().search_many(vectors[::-1], k)


class Unbounded(FakeIndex):
    def at(self, vector, items):
        return super().at(vector, items) + np.float32(1)


class Backwards(FakeIndex):
    def search(self, vector, k):
        scores = self.at(vector, np.arange(len(self._vectors), dtype=np.int32))
        best = np.lexsort((-np.arange(len(scores)), -scores))[:k].astype(np.int32)
        return best, scores[best]


class FromZero(FakeEventSource):
    def scan(self):
        return super().scan().with_columns(pl.col("line") - 1)


class Renamed(FakeEventSource):
    def scan(self):
        return super().scan().rename({"user_id": "customer"})


SCORES = [0.1, 3, 0, 2, 2, -1, 0.5, 0]
ROWS = [{"event_type": "view", "user_id": "ann", "ts_ms": 1, "item_id": "a"}]
BROKEN = [
    (testing.EncoderConformance, LongRows, (), "test_gives_one_unit_row_per_content"),
    (testing.EncoderConformance, WideRows, (), "test_gives_one_unit_row_per_content"),
    (testing.EncoderConformance, BatchMean, (), "test_row_does_not_depend_on_its_batch"),
    (testing.EncoderConformance, OneForAll, (), "test_tells_contents_apart"),
    (testing.CandidateSourceConformance, WorstFirst, (SCORES,), "test_top_is_sorted_positive_distinct_and_typed"),
    (testing.CandidateSourceConformance, WithZeros, (SCORES,), "test_top_is_sorted_positive_distinct_and_typed"),
    (testing.CandidateSourceConformance, Overlooking, (SCORES,), "test_scores_agree_wherever_they_are_asked"),
    (testing.CandidateSourceConformance, TwoScales, (SCORES,), "test_scores_agree_wherever_they_are_asked"),
    (testing.CandidateSourceConformance, Growing, (SCORES,), "test_depends_on_the_context_alone"),
    (testing.CandidateSourceConformance, Scribbling, (SCORES,), "test_leaves_the_context_as_it_was"),
    (testing.CandidateSourceConformance, OthersReasons, (SCORES,), "test_reasons_are_its_own"),
    (testing.CandidateSourceConformance, Forgetful, (SCORES,), "test_comes_back_from_disk"),
    (testing.BulkSourceConformance, Hasty, (SCORES,), "test_many_at_once_say_what_each_says_alone"),
    (testing.FilterConformance, ByPlace, (), "test_judges_each_item_by_itself"),
    (testing.FilterConformance, Shortened, (), "test_answers_for_each_item"),
    (testing.ScorerConformance, Centred, (), "test_order_of_candidates_does_not_matter"),
    (testing.JudgeConformance, Relative, (), "test_judges_each_candidate_by_itself"),
    (testing.JudgeConformance, Moody, (), "test_repeats_itself"),
    (testing.JudgeConformance, Certain, (), "test_gives_one_finite_logit_per_candidate"),
    (testing.SelectorConformance, Overfull, (), "test_fills_no_more_than_asked"),
    (testing.SelectorConformance, Forgetting, (), "test_keeps_what_is_chosen_first"),
    (testing.VectorIndexConformance, Farthest, None, "test_finds_the_greatest_inner_products"),
    (testing.VectorIndexConformance, Misaligned, None, "test_many_at_once_find_what_each_finds_alone"),
    (testing.VectorIndexConformance, Unbounded, None, "test_scores_are_inner_products"),
    (testing.VectorIndexConformance, Backwards, None, "test_equal_rows_come_in_row_order"),
    (testing.EventSourceConformance, FromZero, (ROWS,), "test_numbers_its_lines_from_one"),
    (testing.EventSourceConformance, Renamed, (ROWS,), "test_uses_the_canonical_names"),
]


@pytest.mark.parametrize(("suite", "broken", "given", "test"), BROKEN, ids=[case[1].__name__ for case in BROKEN])
def test_broken_promise_is_caught(suite, broken, given, test, tmp_path):
    make = broken if given is None else lambda self=None: broken(*given)
    body = {"make": (lambda self, vectors: make(vectors)) if given is None else (lambda self: make())}
    if suite is testing.CandidateSourceConformance:
        body |= {"n_items": 8, "load": lambda self, folder: broken.load(folder)}
    tried = type("Tried", (suite,), body)()
    with pytest.raises(AssertionError):
        getattr(tried, test)(*([tmp_path] if test == "test_comes_back_from_disk" else []))


def test_every_plug_point_has_a_suite_and_a_fake():
    points = [
        name
        for name, value in vars(protocols).items()
        if getattr(value, "_is_protocol", False) and value.__module__ == protocols.__name__
    ]
    fakes = {"CandidateSource": "FakeSource", "BulkSource": "FakeSource", "VectorIndex": "FakeIndex"}
    assert points
    for point in points:
        assert f"{point}Conformance" in testing.__all__, point
        assert fakes.get(point, f"Fake{point}") in testing.__all__, point
