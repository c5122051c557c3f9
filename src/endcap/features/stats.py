"""What past sales say about each item, for the ranker.

Legend: i items.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Float32Array
from endcap.features.sequences import Histories

DAY_MS = 86_400_000
FADING_DAYS = 14
SPREAD = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True, eq=False)
class ItemStats:
    """All float32 [i]. baskets, users: log1p of how many had the item. repeat: share of its sales that were repeats.

    trend: log ratio of its sales in the last 28 days to its average pace. quiet_days: days since it last sold, at
    the end of training. interval_days: mean time between two purchases by one user (365 where there were none).
    lately: log1p of its sales, halved every 14 days before the end of training. newcomers: the same of first purchases
    alone, what people try these days. basket_size: log1p of how many rows the orders with it have on average.
    """

    baskets: Float32Array
    users: Float32Array
    repeat: Float32Array
    trend: Float32Array
    quiet_days: Float32Array
    interval_days: Float32Array
    lately: Float32Array
    newcomers: Float32Array
    basket_size: Float32Array

    @classmethod
    def build(cls, histories: Histories, n_items: int, until_ms: int) -> ItemStats:
        events = histories.events
        owners = np.repeat(np.arange(len(histories.offsets) - 1), np.diff(histories.offsets))
        rows = events.successes()
        if not len(rows):
            return cls._of_nothing(n_items)
        users, items, ts_ms, baskets = owners[rows], events.items[rows], events.ts_ms[rows], events.baskets[rows]
        order = np.lexsort((ts_ms, users, items))
        users, items, ts_ms, baskets = users[order], items[order], ts_ms[order], baskets[order]
        same_owner = _after(items[1:] == items[:-1]) & _after(users[1:] == users[:-1])
        repeated = same_owner & _after(baskets[1:] != baskets[:-1])
        sold = ~same_owner | repeated
        total = np.bincount(items[sold], minlength=n_items)
        owned = np.bincount(items[~same_owner], minlength=n_items)
        gaps = np.diff(ts_ms, prepend=ts_ms[:1])[repeated] / DAY_MS
        again = np.bincount(items[repeated], minlength=n_items)
        mean_gap = np.bincount(items[repeated], gaps, n_items) / np.maximum(again, 1)
        lately = np.bincount(items[sold & (ts_ms >= until_ms - 28 * DAY_MS)], minlength=n_items)
        fading = 0.5 ** ((until_ms - ts_ms) / (FADING_DAYS * DAY_MS))
        mixed = baskets + users.astype(np.uint64) * np.uint64(SPREAD)  # equal times of two users are two baskets
        _, order_of, rows_of = np.unique(mixed, return_inverse=True, return_counts=True)
        rows_with = np.bincount(items, rows_of[order_of], n_items) / np.maximum(
            np.bincount(items, minlength=n_items), 1
        )
        span_days = max(28.0, (until_ms - int(ts_ms.min(initial=until_ms))) / DAY_MS)
        last = np.zeros(n_items)
        np.maximum.at(last, items, ts_ms)
        return cls(
            np.log1p(total).astype(np.float32),
            np.log1p(owned).astype(np.float32),
            (again / np.maximum(total, 1)).astype(np.float32),
            np.log((lately + 1) / (total * 28 / span_days + 1)).astype(np.float32),
            np.where(last > 0, (until_ms - last) / DAY_MS, 9999).astype(np.float32),
            np.where(again > 0, mean_gap, 365).astype(np.float32),
            np.log1p(np.bincount(items[sold], fading[sold], n_items)).astype(np.float32),
            np.log1p(np.bincount(items[~same_owner], fading[~same_owner], n_items)).astype(np.float32),
            np.log1p(rows_with).astype(np.float32),
        )

    @classmethod
    def _of_nothing(cls, n_items: int) -> ItemStats:
        unknown = {"quiet_days": 9999.0, "interval_days": 365.0}
        return cls(*(np.full(n_items, unknown.get(field.name, 0.0), np.float32) for field in fields(cls)))

    def widened(self, room: int) -> ItemStats:
        """The same with rows at the end of items that nobody has bought yet."""
        blank = self._of_nothing(room)
        return ItemStats(*(np.append(getattr(self, one.name), getattr(blank, one.name)) for one in fields(self)))

    def save(self, folder: Path) -> None:
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> ItemStats:
        return cls(*(np.load(folder / f"{field.name}.npy", allow_pickle=False) for field in fields(cls)))


def _after(same_as_before: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A comparison of each row with the one before it, with False for the first row where there is one."""
    return np.concatenate([[False], same_as_before])
