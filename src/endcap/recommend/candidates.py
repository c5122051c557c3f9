"""The union of what the sources propose, with what every source says about every member.

Legend: s sources, n candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from endcap.core.protocols import CandidateSource
from endcap.core.types import Candidates, Context, Evidence, Int32Array

Allowed = Callable[[Int32Array], NDArray[np.bool_]]


def gather(sources: Sequence[CandidateSource], context: Context, per_source: int, allowed: Allowed) -> Candidates:
    """Each source's best `per_source` allowed items, merged.

    What may not be shown is taken out before it is scored, so that a source whose favourites are hidden (everything
    a household has bought, on a discovery shelf) still proposes its full share.
    """
    evidence = [source.weigh(context) for source in sources]
    proposals = [_allowed_top(entry, per_source, allowed) for entry in evidence]
    items = np.unique(np.concatenate([np.empty(0, np.int32), *proposals]))
    scores = np.empty((len(items), len(sources)), np.float32)
    ranks = np.full((len(items), len(sources)), per_source, np.float32)
    for column, (entry, proposed) in enumerate(zip(evidence, proposals, strict=True)):
        scores[:, column] = entry.at(items)
        ranks[np.searchsorted(items, proposed), column] = np.arange(len(proposed), dtype=np.float32)
    return Candidates(items, scores, ranks)


def _allowed_top(entry: Evidence, per_source: int, allowed: Allowed) -> Int32Array:
    """The best allowed items; asks for more only while too many of them turn out not to be allowed."""
    asked = per_source + per_source // 2
    while True:
        items, _ = entry.top(asked)
        shown = items[allowed(items)]
        if len(shown) >= per_source or len(items) < asked:
            return shown[:per_source]
        asked *= 3
