"""Judging what orders candidates on users it has not seen, all of them: each fold is judged by what the others taught.

Legend: q queries, n candidates of all queries end to end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endcap.core.errors import CallerError
from endcap.core.types import Float32Array, Int64Array

K = 10
Gains = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """features: float32 [n, f]. labels: int8 [n], 1 for a target. sizes: int64 [q], candidates of each query.
    users: int64 [q], whose query it is: a user's queries are in one fold."""

    features: Float32Array
    labels: NDArray[np.int8]
    sizes: Int64Array
    users: Int64Array

    def of(self, queries: NDArray[np.bool_]) -> Examples:
        """Those of some queries. queries: bool [q]."""
        rows = np.repeat(queries, self.sizes)
        return Examples(self.features[rows], self.labels[rows], self.sizes[queries], self.users[queries])

    def queries(self) -> Int64Array:
        """int64 [n]: which query each candidate is of."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def folds(examples: Examples, count: int, seed: int) -> Int64Array:
    """int64 [q]: the fold of each query's user; the users of the folds differ in number by one at most.

    CallerError where there is one user only.
    """
    users, place = np.unique(examples.users, return_inverse=True)
    if len(users) < 2:
        raise CallerError("The examples are of one user only.", where="folds", next_step="Do without a ranker.")
    dealt = np.random.default_rng(seed).permutation(len(users)) % min(count, len(users))
    return dealt[place]


def dcg(scores: Float32Array, examples: Examples) -> Gains:
    """float64 [q]: the sum over targets among the first K of 1 / log2(rank + 1)."""
    queries = examples.queries()
    order = np.lexsort((-scores, queries))
    starts = np.cumsum(examples.sizes) - examples.sizes
    ranks = np.arange(len(scores)) - np.repeat(starts, examples.sizes) + 1
    found = np.where((examples.labels[order] > 0) & (ranks <= K), 1 / np.log2(ranks + 1), 0)
    return np.bincount(queries, found, len(examples.sizes)).astype(np.float64)


def ideal(examples: Examples) -> Gains:
    """float64 [q]: the DCG of all targets in front."""
    targets = np.bincount(examples.queries(), examples.labels, len(examples.sizes)).astype(np.int64)
    best = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, K + 2)))])
    highest: Gains = np.maximum(best[np.minimum(targets, K)], 1e-9)
    return highest
