"""The k best of many scores, repeatably: equal scores stand in the order of their positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Float32Array, Int32Array

BLOCK = 64


def distinct(items: Int32Array) -> Int32Array:
    """`np.unique`, several times as fast for the few thousand items of one answer."""
    ordered = np.sort(items)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def threshold(scores: Float32Array, k: int) -> float:
    """A score that at least k of float32 [n] reach, and few more; -inf where n <= k.

    The k-th largest of the maxima of blocks is one: k different blocks each hold a score that reaches it. Looking for
    it among n / 64 maxima is an order of magnitude faster than among n scores.
    """
    n = len(scores)
    if n <= k or k <= 0:
        return -np.inf
    blocks = n // BLOCK
    if blocks < 4 * k:
        return float(np.partition(scores, n - k)[n - k])
    maxima = scores[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1)
    return float(np.partition(maxima, blocks - k)[blocks - k])


def best_positions(scores: Float32Array, k: int, above: float = -np.inf) -> NDArray[np.int64]:
    """int64 [<= k]: positions of the highest scores, best first, of those greater than `above`."""
    inside = np.arange(len(scores)) if above == -np.inf else np.flatnonzero(scores > above)
    found = scores if above == -np.inf else scores[inside]
    least = threshold(found, k)
    higher = np.flatnonzero(found > least)
    ranked = higher[np.lexsort((higher, -found[higher]))][: max(k, 0)]
    if len(ranked) < k:  # then the k-th is among those that equal it, of which there may be very many: no need to sort
        ranked = np.concatenate([ranked, np.flatnonzero(found == least)[: k - len(ranked)]])
    return inside[ranked]
