"""The path of one query: candidates, features, score, second look, selection, reasons. The same object trains and
answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, pairwise
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from endcap.core.faults import origin
from endcap.core.protocols import CandidateSource, Filter, Scorer, Selector
from endcap.core.types import (
    Candidates,
    Context,
    Evidence,
    Float32Array,
    Int32Array,
    Int64Array,
    Query,
    Recommendation,
)
from endcap.features.items import ItemTable
from endcap.recommend.candidates import SILENT, Shortlist, gather, joined, weigh
from endcap.recommend.explain import Explainer
from endcap.recommend.filters import every
from endcap.recommend.hydrate import Hydrator
from endcap.recommend.score import RankFusion
from endcap.recommend.second_look import SecondLook
from endcap.recommend.stages import Costs, Stages

LOG = logging.getLogger(__name__)
LOOKED_THROUGH = 1000
Asked = tuple[Query, Context]
Said = tuple[Evidence, ...]
Answer = tuple[tuple[Recommendation, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Scored candidates, best first. items int32, scores float32, rows into `candidates`: all [n]. degraded: the stages
    that gave way to a fallback, with what they raised."""

    candidates: Candidates
    items: Int32Array
    scores: Float32Array
    rows: np.ndarray[tuple[int], np.dtype[np.int64]]
    degraded: Mapping[str, Exception] = field(default_factory=dict)


class Pipeline:
    """All parts are given; nothing here knows how they were trained.

    fallback: every item of the catalogue from best to least selling these days, of which the first `sold` were sold
    at all. It answers strangers, of whom nothing is known that a ranker could weigh, and fills a page that candidates
    leave short.
    """

    def __init__(
        self,
        *,
        table: ItemTable,
        sources: Sequence[CandidateSource],
        hydrator: Hydrator,
        scorer: Scorer | None,
        shortlist: Shortlist | None = None,
        second_look: SecondLook | None = None,
        filters: Sequence[Filter],
        selectors: Sequence[Selector],
        per_source: int,
        fallback: Int32Array,
        sold: int,
    ) -> None:
        self.table, self.sources, self.hydrator, self.scorer = table, tuple(sources), hydrator, scorer
        self.filters, self.selectors = tuple(filters), tuple(selectors)
        self.shortlist, self._names = shortlist, [source.name for source in self.sources]
        self.second_look = second_look
        self.per_source, self.fallback, self.sold = per_source, fallback, sold
        self.costs = Costs()
        self._titles = table.titles()
        # of the table, not of the pipeline: one that held itself would not be gone when the next release answers
        self._explainer = Explainer(self.sources, self._titles.__getitem__, partial(_category, table))

    def candidates(
        self,
        asked: Sequence[Asked],
        said: Sequence[Said] | None = None,
        failed: dict[str, Exception] | None = None,
        stages: Stages | None = None,
    ) -> list[Candidates]:
        """For each question the shortlist of what the sources propose and may be shown; nothing for a stranger.

        said: what each source says to each context, where it is known already. failed, stages: see `candidates.weigh`.
        """
        known = [place for place, (_, context) in enumerate(asked) if _is_known(context)]
        weighed = (
            [said[place] for place in known]
            if said
            else weigh(self.sources, [asked[at][1] for at in known], failed, stages)
        )
        evidence: list[Said] = [(SILENT,) * len(self.sources)] * len(asked)
        for place, one in zip(known, weighed, strict=True):
            evidence[place] = one
        found = [
            gather(one, self.per_source, partial(self._allowed, stages, query, context))
            for (query, context), one in zip(asked, evidence, strict=True)
        ]
        if self.shortlist is None:
            return found
        return [self.shortlist.of(one, self._names, query.n) for one, (query, _) in zip(found, asked, strict=True)]

    def rank(
        self, asked: Sequence[Asked], said: Sequence[Said] | None = None, stages: Stages | None = None
    ) -> list[Ranked]:
        """Candidates scored and sorted; equal scores in the order of the items, so that answers repeat. said: see
        `candidates`. stages: what the answer can afford; everything, if left out."""
        degraded: dict[str, Exception] = {}
        contexts = [context for _, context in asked]
        stages = stages or Stages()
        found = self.candidates(asked, said, degraded, stages)
        stages.done("candidates")
        scores = self._scores(joined(found), contexts, degraded, stages)
        ends = list(accumulate((len(one.items) for one in found), initial=0))
        parts = [scores[start:end] for start, end in pairwise(ends)]
        ranked = [_sorted(one, part, degraded) for one, part in zip(found, parts, strict=True)]
        return self._looked_at(ranked, contexts, degraded, stages)

    def answer(self, query: Query, context: Context, stages: Stages | None = None) -> Answer:
        """The slate's items with reasons, and the stages that gave way to a fallback. stages: see `rank`."""
        return self.answers([(query, context)], stages)[0]

    def answers(self, asked: Sequence[Asked], stages: Stages | None = None) -> list[Answer]:
        """`answer` for several at once, which costs less than one after the other."""
        stages = stages or Stages()
        found = []
        for (query, context), ranked in zip(asked, self.rank(asked, stages=stages), strict=True):
            chosen = np.empty(0, np.int32)
            for selector in self.selectors:
                chosen = selector.select(query, ranked.items, chosen)
            by_item = ranked.items.argsort()
            places = by_item.take(ranked.items.searchsorted(chosen, sorter=by_item), mode="clip")
            if (ranked.items[places] != chosen).any():
                raise ValueError("a selector chose an item that was not ranked")
            slate = self._recommendations(query, context, ranked, places)
            slate += self._filling(query, context, ranked, query.n - len(slate))
            found.append((tuple(slate), tuple(ranked.degraded)))
        stages.done("selection")
        return found

    def put(self, place: int, title: str, text: str) -> None:
        """Take over what the table says of an item now, which has been put there. text: what a judge reads of it."""
        self._titles[place] = title
        self.hydrator.put(place)
        if self.second_look is not None:
            self.second_look.put(place, text)

    def plain(self, code: str, locale: str) -> str:
        """A reason that names nothing, in words."""
        return self._explainer.plain(code, locale)

    def shown(self, item: int, score: float, source: str, reason: str) -> Recommendation:
        """An item of the catalogue as it goes into a slate."""
        return Recommendation(self.table.ids.ids[item], self._titles[item], score, source, reason)

    def _allowed(self, stages: Stages | None, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        began = perf_counter()
        allowed = every(self.filters, query, context, items)
        if stages is not None:
            stages.within("filters", perf_counter() - began)
        return allowed

    def _scores(
        self, candidates: Candidates, contexts: Sequence[Context], degraded: dict[str, Exception], stages: Stages
    ) -> Float32Array:
        """The ranker's; those of rank fusion where there is none, or it fails, or no time is left for it."""
        if self.scorer is not None and len(candidates.items):
            try:
                if stages.affords("ranker", times=len(contexts)):
                    features = self.hydrator.features(candidates, contexts)
                    spent = stages.done("features")
                    scores = self.scorer.score(features, candidates)
                    stages.costs.learn("ranker", (spent + stages.done("score")) / len(contexts))
                    return scores
                degraded["ranker"] = TimeoutError("no time was left")
            except (
                Exception
            ) as error:  # a slate in the sources' own order beats no slate; the answer and the log say so
                LOG.error("The ranker failed; the slate is in the order of rank fusion: %s", origin(error))
                degraded["ranker"] = error
        scores = RankFusion().score(np.empty((0, 0), np.float32), candidates)
        stages.done("score")
        return scores

    def _looked_at(
        self, ranked: list[Ranked], contexts: Sequence[Context], degraded: dict[str, Exception], stages: Stages
    ) -> list[Ranked]:
        """The same candidates, the first few of each in the order of a second look, where there is one."""
        if self.second_look is None:
            return ranked
        if not stages.affords("judge", times=len(contexts)):
            degraded["judge"] = TimeoutError("no time was left")
            return ranked
        found = []
        try:
            for one, context in zip(ranked, contexts, strict=True):
                seen = self.second_look.look(context, one.items, one.scores)
                found.append(one if seen is None else _reordered(one, *seen))
        except Exception as error:  # the ranker's order is the next best answer
            LOG.error("The judge failed; the slate is in the ranker's order: %s", origin(error))
            degraded["judge"] = error
            return ranked
        stages.costs.learn("judge", stages.done("judge") / len(contexts))
        return found

    def _recommendations(
        self, query: Query, context: Context, ranked: Ranked, places: Int64Array
    ) -> list[Recommendation]:
        """places: int64 [k], among the ranked."""
        reasons = self._explainer.reasons(ranked.candidates, ranked.rows[places], context)
        return [
            self.shown(item, score, reason.source, self._explainer.sentence(reason, item, query.locale))
            for item, score, reason in zip(
                ranked.items[places].tolist(), ranked.scores[places].tolist(), reasons, strict=True
            )
        ]

    def _filling(self, query: Query, context: Context, ranked: Ranked, missing: int) -> list[Recommendation]:
        """The best selling allowed items that were no candidates, so that a page is full whenever it can be."""
        if missing <= 0:
            return []
        found: list[int] = []
        for start in range(0, len(self.fallback), LOOKED_THROUGH):
            places = np.arange(start, min(start + LOOKED_THROUGH, len(self.fallback)))
            places = places[~np.isin(self.fallback[places], ranked.items)]
            found += places[every(self.filters, query, context, self.fallback[places])].tolist()
            if len(found) >= missing:
                break
        return [self._fallback(place, query.locale) for place in found[:missing]]

    def _fallback(self, place: int, locale: str) -> Recommendation:
        code = "popular" if place < self.sold else "range"
        item = int(self.fallback[place])
        return self.shown(item, 0.0, code, self._explainer.plain(code, locale))


def _category(table: ItemTable, item: int) -> str:
    path = table.categories_of(item)
    return path[-1] if len(path) else ""


def _is_known(context: Context) -> bool:
    return bool(len(context.items) or len(context.cart) or context.anchor >= 0)


def _sorted(candidates: Candidates, scores: Float32Array, degraded: Mapping[str, Exception]) -> Ranked:
    rows = (-scores).argsort(kind="stable")  # equal ones stay in the order of the items
    return Ranked(candidates, candidates.items[rows], scores[rows], rows, degraded)


def _reordered(ranked: Ranked, order: NDArray[np.int64], scores: Float32Array) -> Ranked:
    return replace(ranked, items=ranked.items[order], scores=scores, rows=ranked.rows[order])
