"""Filling the slate from ranked items. Selectors are chained; each sees what the earlier ones chose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from endcap.core.section import Section
from endcap.core.types import Int32Array, Query


class SlateConfig(Section):
    new_every: int = Field(
        0, ge=0, description="Among so many places of a slate one at least is kept for a new item; 0 keeps none."
    )
    new_below: int = Field(1, ge=1, description="Items sold in fewer baskets than this are new.")


class Best:
    """The highest scored first."""

    def select(self, query: Query, ranked: Int32Array, chosen: Int32Array) -> Int32Array:
        if not len(chosen):
            return ranked[: query.n]
        remaining = ranked[~np.isin(ranked, chosen)]
        return np.concatenate([chosen, remaining])[: query.n]


class NewItems:
    """Keeps places for what is new: among the first 1, 2, ... times `every` places at least 1, 2, ... new items stand,
    the best ranked, where there are so many.

    A ranker learns from what was bought, so what nobody could buy yet stands far down, and nobody gets to know it.
    """

    def __init__(self, new: NDArray[np.bool_], every: int) -> None:
        """new: bool [items]. every: at least 1."""
        self.new, self.every = new, every

    def select(self, query: Query, ranked: Int32Array, chosen: Int32Array) -> Int32Array:
        """Up to the last place that is kept; what follows is for the next selector."""
        remaining = ranked[~np.isin(ranked, chosen)].tolist()
        waiting = [item for item in remaining if self.new[item]]
        slate = chosen.tolist()
        held = int(self.new[chosen].sum())
        while remaining and waiting and len(slate) < query.n:
            due = (len(slate) + 1) // self.every > held
            item = waiting[0] if due else remaining[0]
            remaining.remove(item)
            slate.append(item)
            if self.new[item]:
                waiting.remove(item)
                held += 1
        return np.array(slate, np.int32)
