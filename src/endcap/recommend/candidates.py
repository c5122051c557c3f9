"""The union of what the sources propose, with what every source says about every member.

Legend: s sources, n candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from endcap.core.protocols import BulkSource, CandidateSource
from endcap.core.ranking import distinct
from endcap.core.types import Candidates, Context, Evidence, Float32Array, Int32Array

LOG = logging.getLogger(__name__)
Allowed = Callable[[Int32Array], NDArray[np.bool_]]


def weigh(
    sources: Sequence[CandidateSource], contexts: Sequence[Context], failed: list[str] | None = None
) -> list[tuple[Evidence, ...]]:
    """For each context what every source says.

    failed: takes the names of sources that raise, which then count as silent; without it their errors are raised.
    """
    by_source = [_weigh(source, contexts, failed) for source in sources]
    return [tuple(said[place] for said in by_source) for place in range(len(contexts))]


def gather(evidence: Sequence[Evidence], per_source: int, allowed: Allowed) -> Candidates:
    """Each source's best `per_source` allowed items, merged.

    What may not be shown is taken out before it is scored, so that a source whose favourites are hidden (everything
    a household has bought, on a discovery shelf) still proposes its full share.
    """
    asked = per_source + per_source // 2
    tops = [entry.top(asked)[0] for entry in evidence]
    union = distinct(np.concatenate([np.empty(0, np.int32), *tops]))
    shown = allowed(union)
    proposals = [top[shown[np.searchsorted(union, top)]][:per_source] for top in tops]
    for place, (entry, top) in enumerate(zip(evidence, tops, strict=True)):
        if len(proposals[place]) < per_source and len(top) == asked:
            proposals[place] = _further_down(entry, per_source, asked, allowed)
    items = distinct(np.concatenate([np.empty(0, np.int32), *proposals]))
    scores = np.empty((len(items), len(evidence)), np.float32)
    ranks = np.full((len(items), len(evidence)), per_source, np.float32)
    for column, (entry, proposed) in enumerate(zip(evidence, proposals, strict=True)):
        scores[:, column] = entry.at(items)
        ranks[np.searchsorted(items, proposed), column] = np.arange(len(proposed), dtype=np.float32)
    return Candidates.of(items, scores, ranks, per_source)


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


class _Silent:
    """What a source that failed says, and any source of a stranger."""

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        return np.empty(0, np.int32), np.empty(0, np.float32)

    def at(self, items: Int32Array) -> Float32Array:
        return np.zeros(len(items), np.float32)


SILENT = _Silent()


def _weigh(source: CandidateSource, contexts: Sequence[Context], failed: list[str] | None) -> Sequence[Evidence]:
    try:
        if len(contexts) > 1 and isinstance(source, BulkSource):
            return source.weigh_many(contexts)
        return [source.weigh(context) for context in contexts]
    except Exception:
        if failed is None:
            raise
        LOG.exception("The source %s failed; the slate does without it.", source.name)
        failed.append(source.name)
        return [SILENT] * len(contexts)


def _further_down(entry: Evidence, per_source: int, asked: int, allowed: Allowed) -> Int32Array:
    """The best allowed items of a source most of whose favourites are not; asks for more until they suffice."""
    while True:
        asked *= 3
        items, _ = entry.top(asked)
        shown = items[allowed(items)]
        if len(shown) >= per_source or len(items) < asked:
            return shown[:per_source]
