"""The nearest of many, without putting all of them into order."""

from __future__ import annotations

import numpy as np

from endcap.core.types import Float32Array, Int64Array


def nearest(scores: Float32Array, count: int) -> Int64Array:
    """[b, count]: the columns of each row's highest scores, best first. scores: [b, c], count at most c."""
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)
