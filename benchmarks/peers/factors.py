"""Between the protocol and models that learn a vector for every user and every item from a sparse matrix."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from benchmarks.peers.protocol import Float32Array, Int64Array, Score, Stage


def matrix(stage: Stage) -> sparse.csr_matrix:
    """How often each user had each item in the past: float32 [u, i]."""
    users, items = stage.pairs()
    shape = (len(stage.past), len(stage.known))
    return sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)


def factor_scores(users: Float32Array, items: Float32Array) -> Score:
    """Their dot products. users: [u, d], items: [i, d]."""

    def score(asked: Int64Array) -> Float32Array:
        return users[asked] @ items.T

    return score
