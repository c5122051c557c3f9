"""The union of what the sources propose, with what every source says about every member.

Legend: s sources, n candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from endcap.core.faults import origin
from endcap.core.protocols import BulkSource, CandidateSource
from endcap.core.ranking import best_positions, distinct
from endcap.core.types import Candidates, Context, Evidence, Float32Array, Int32Array
from endcap.recommend.stages import Stages

LOG = logging.getLogger(__name__)
Allowed = Callable[[Int32Array], NDArray[np.bool_]]


def weigh(
    sources: Sequence[CandidateSource],
    contexts: Sequence[Context],
    failed: dict[str, Exception] | None = None,
    stages: Stages | None = None,
) -> list[tuple[Evidence, ...]]:
    """For each context what every source says.

    failed: takes the errors of sources that raise, by name, which then count as silent; without it they are raised.
    stages: of the answer, where there is one: sources for which no time is left are silent.
    """
    by_source = [_weigh(source, contexts, failed, stages) for source in sources]
    return [tuple(said[place] for said in by_source) for place in range(len(contexts))]


def gather(evidence: Sequence[Evidence], per_source: int, allowed: Allowed) -> Candidates:
    """Each source's best `per_source` allowed items, merged.

    What may not be shown is taken out before it is scored, so that a source whose favourites are hidden (everything
    a household has bought, on a discovery shelf) still proposes its full share.
    """
    asked = per_source + per_source // 2
    tops = [entry.top(asked)[0] for entry in evidence]
    union, places = _united(tops)
    shown = allowed(union)[places]
    ends = list(accumulate(map(len, tops)))
    proposals = [top[shown[end - len(top) : end]][:per_source] for top, end in zip(tops, ends, strict=True)]
    for place, (entry, top) in enumerate(zip(evidence, tops, strict=True)):
        if len(proposals[place]) < per_source and len(top) == asked:
            proposals[place] = _further_down(entry, per_source, asked, allowed)
    items, places = _united(proposals)
    scores = np.empty((len(items), len(evidence)), np.float32)
    for column, entry in enumerate(evidence):
        scores[:, column] = entry.at(items)
    ranks = np.full((len(items), len(evidence)), per_source, np.float32)
    sizes = np.array(list(map(len, proposals)), np.int64)
    columns = np.arange(len(evidence)).repeat(sizes)
    ranks[places, columns] = np.arange(len(places)) - (sizes.cumsum() - sizes)[columns]
    return Candidates.of(items, scores, ranks, per_source)


def _united(parts: Sequence[Int32Array]) -> tuple[Int32Array, NDArray[np.int64]]:
    """The distinct items of all parts, and where each of them, end to end, is among these."""
    together = np.concatenate([np.empty(0, np.int32), *parts])
    items = distinct(together)
    places = np.empty(int(items[-1]) + 1 if len(items) else 0, np.int64)
    places[items] = np.arange(len(items))
    return items, places[together]


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Those of several contexts, end to end."""
    if len(parts) == 1:
        return parts[0]
    return Candidates(
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.ranks for part in parts]),
        parts[0].per_source,
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.best for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The candidates that are worth the ranker's time: the best `size` by a weighted sum of the sources' shares.

    weights: by source; others count nothing.
    """

    size: int
    weights: Mapping[str, float]

    def of(self, candidates: Candidates, sources: Sequence[str], least: int = 0) -> Candidates:
        """Of the candidates of one context. sources: the names of their columns. least: how many are asked for."""
        size = max(self.size, least)
        if len(candidates.items) <= size:
            return candidates
        weights = np.array([self.weights.get(source, 0.0) for source in sources])
        best = candidates.best[0].astype(np.float64)  # what is left of a purchase of long ago can be 1e-40
        by_score = np.divide(weights, best, out=np.zeros_like(weights), where=best > 0)
        return candidates.take(np.sort(best_positions(candidates.scores @ by_score, size)))


def shares(candidates: Candidates) -> Float32Array:
    """float32 [n, s]: each source's score over its best for the same shopper; 0 where it has none above 0."""
    best = candidates.best.repeat(candidates.sizes, axis=0)
    return np.divide(candidates.scores, best, out=np.zeros_like(best), where=best > 0)


class _Silent:
    """What a source that failed says, and any source of a stranger."""

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        return np.empty(0, np.int32), np.empty(0, np.float32)

    def at(self, items: Int32Array) -> Float32Array:
        return np.zeros(len(items), np.float32)


SILENT = _Silent()


def _weigh(
    source: CandidateSource,
    contexts: Sequence[Context],
    failed: dict[str, Exception] | None,
    stages: Stages | None,
) -> Sequence[Evidence]:
    if stages is not None and failed is not None:
        return _weigh_in_time(source, contexts, failed, stages)
    try:
        if len(contexts) > 1 and isinstance(source, BulkSource):
            return source.weigh_many(contexts)
        return [source.weigh(context) for context in contexts]
    except Exception as error:
        if failed is None:
            raise
        LOG.error("The source %s failed; the slate does without it: %s", source.name, origin(error))
        failed[source.name] = error
        return [SILENT] * len(contexts)


def _weigh_in_time(
    source: CandidateSource, contexts: Sequence[Context], failed: dict[str, Exception], stages: Stages
) -> Sequence[Evidence]:
    if not stages.affords(source.name, "ranker", times=len(contexts)):
        failed[source.name] = TimeoutError("no time was left")
        return [SILENT] * len(contexts)
    began = perf_counter()
    said = _weigh(source, contexts, failed, None)
    stages.costs.learn(source.name, (perf_counter() - began) / max(1, len(contexts)))
    return said


def _further_down(entry: Evidence, per_source: int, asked: int, allowed: Allowed) -> Int32Array:
    """The best allowed items of a source most of whose favourites are not; asks for more until they suffice."""
    while True:
        asked *= 3
        items, _ = entry.top(asked)
        shown = items[allowed(items)]
        if len(shown) >= per_source or len(items) < asked:
            return shown[:per_source]
