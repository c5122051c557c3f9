"""Histories as a sparse matrix of baskets by items: what neighbour models are counted from.

Legend: b baskets (purchases that share a session; single acts where nothing is bought), i items, u users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from endcap.core.types import EventType, Int64Array
from endcap.features.sequences import Histories

PURCHASE = EventType.PURCHASE.code


@dataclass(frozen=True, slots=True, eq=False)
class Baskets:
    """content: float32 [b, i] of ones, rows in the order of user and time. users: int64 [b], the row's user."""

    content: sparse.csr_array
    users: Int64Array

    @classmethod
    def build(cls, histories: Histories, n_items: int) -> Baskets:
        """From purchases; from all acts, each its own basket, where there are none."""
        events = histories.events
        counts = np.diff(histories.offsets)
        users = np.repeat(np.arange(len(counts)), counts)
        rows = events.successes()
        users, items = users[rows], events.items[rows]
        bought = bool(len(rows)) and bool((events.kinds[rows] == PURCHASE).all())
        keys = events.baskets[rows] if bought else np.arange(len(rows), dtype=np.uint64)
        starts = np.ones(len(rows), np.bool_)
        starts[1:] = (users[1:] != users[:-1]) | (keys[1:] != keys[:-1])
        basket = np.cumsum(starts) - 1
        content = sparse.csr_array(
            (np.ones(len(items), np.float32), (basket, items)),
            shape=(int(basket[-1]) + 1 if len(basket) else 0, n_items),
        )
        content.sum_duplicates()
        content.data[:] = 1
        return cls(content, users[starts] if len(users) else users)

    @property
    def mean_size(self) -> float:
        """Distinct items a basket."""
        return self.content.nnz / max(1, self.content.shape[0])

    def by_user(self) -> sparse.csr_array:
        """float32 [u, i] of ones: what each user ever had."""
        shape = (int(self.users.max(initial=-1)) + 1, self.content.shape[1])
        rows = np.repeat(self.users, np.diff(self.content.indptr))
        merged = sparse.csr_array((np.ones(len(rows), np.float32), (rows, self.content.indices)), shape=shape)
        merged.sum_duplicates()
        merged.data[:] = 1
        return merged
