"""The union of what the sources propose, with what every source says about every member.

Legend: s sources, n candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from endcap.core.protocols import CandidateSource
from endcap.core.ranking import distinct
from endcap.core.types import Candidates, Context, Evidence, Float32Array, Int32Array

LOG = logging.getLogger(__name__)
Allowed = Callable[[Int32Array], NDArray[np.bool_]]


def gather(
    sources: Sequence[CandidateSource],
    context: Context,
    per_source: int,
    allowed: Allowed,
    failed: list[str] | None = None,
) -> Candidates:
    """Each source's best `per_source` allowed items, merged.

    failed: takes the names of sources that raise, which then count as silent; without it their errors are raised.

    What may not be shown is taken out before it is scored, so that a source whose favourites are hidden (everything
    a household has bought, on a discovery shelf) still proposes its full share.
    """
    evidence = [_weigh(source, context, failed) for source in sources]
    asked = per_source + per_source // 2
    tops = [entry.top(asked)[0] for entry in evidence]
    union = distinct(np.concatenate([np.empty(0, np.int32), *tops]))
    shown = allowed(union)
    proposals = [top[shown[np.searchsorted(union, top)]][:per_source] for top in tops]
    for place, (entry, top) in enumerate(zip(evidence, tops, strict=True)):
        if len(proposals[place]) < per_source and len(top) == asked:
            proposals[place] = _further_down(entry, per_source, asked, allowed)
    items = distinct(np.concatenate([np.empty(0, np.int32), *proposals]))
    scores = np.empty((len(items), len(sources)), np.float32)
    ranks = np.full((len(items), len(sources)), per_source, np.float32)
    for column, (entry, proposed) in enumerate(zip(evidence, proposals, strict=True)):
        scores[:, column] = entry.at(items)
        ranks[np.searchsorted(items, proposed), column] = np.arange(len(proposed), dtype=np.float32)
    return Candidates(items, scores, ranks, per_source)


class _Silent:
    """What a source that failed says."""

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        return np.empty(0, np.int32), np.empty(0, np.float32)

    def at(self, items: Int32Array) -> Float32Array:
        return np.zeros(len(items), np.float32)


def _weigh(source: CandidateSource, context: Context, failed: list[str] | None) -> Evidence:
    try:
        return source.weigh(context)
    except Exception:
        if failed is None:
            raise
        LOG.exception("The source %s failed; the slate does without it.", source.name)
        failed.append(source.name)
        return _Silent()


def _further_down(entry: Evidence, per_source: int, asked: int, allowed: Allowed) -> Int32Array:
    """The best allowed items of a source most of whose favourites are not; asks for more until they suffice."""
    while True:
        asked *= 3
        items, _ = entry.top(asked)
        shown = items[allowed(items)]
        if len(shown) >= per_source or len(items) < asked:
            return shown[:per_source]
