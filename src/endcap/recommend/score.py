"""Scores without a trained ranker: the fallback when there is none, or when it fails."""

from __future__ import annotations

import numpy as np

from endcap.core.types import Candidates, Float32Array

RRF_K = 60


class RankFusion:
    """Reciprocal rank fusion (Cormack, Clarke & Buettcher 2009): the sum over sources of 1 / (60 + rank)."""

    def score(self, features: Float32Array, candidates: Candidates) -> Float32Array:
        silent = candidates.ranks >= candidates.per_source
        shares = np.where(silent, 0, 1 / (RRF_K + 1 + candidates.ranks))
        total: Float32Array = shares.sum(axis=1).astype(np.float32)
        return total
