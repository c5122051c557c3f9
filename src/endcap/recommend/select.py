"""Filling the slate from ranked items. Selectors are chained; each sees what the earlier ones chose."""

from __future__ import annotations

import numpy as np

from endcap.core.types import Int32Array, Query


class Best:
    """The highest scored first."""

    def select(self, query: Query, ranked: Int32Array, chosen: Int32Array) -> Int32Array:
        remaining = ranked[~np.isin(ranked, chosen)]
        return np.concatenate([chosen, remaining])[: query.n]
