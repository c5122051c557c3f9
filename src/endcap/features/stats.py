"""What past sales say about each item, for the ranker.

Legend: i items.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from endcap.core.types import EventType, Float32Array
from endcap.features.sequences import Histories

DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code


@dataclass(frozen=True, slots=True, eq=False)
class ItemStats:
    """All float32 [i]. baskets, users: log1p of how many had the item. repeat: share of its sales that were repeats.

    trend: log ratio of its sales in the last 28 days to its average pace. quiet_days: days since it last sold, at
    the end of training. interval_days: mean time between two purchases by one user (365 where there were none).
    """

    baskets: Float32Array
    users: Float32Array
    repeat: Float32Array
    trend: Float32Array
    quiet_days: Float32Array
    interval_days: Float32Array

    @classmethod
    def build(cls, histories: Histories, n_items: int, until_ms: int) -> ItemStats:
        events = histories.events
        owners = np.repeat(np.arange(len(histories.offsets) - 1), np.diff(histories.offsets))
        rows = np.flatnonzero(events.kinds == PURCHASE)
        rows = rows if len(rows) else np.arange(len(events.items))
        users, items, ts_ms, baskets = owners[rows], events.items[rows], events.ts_ms[rows], events.baskets[rows]
        order = np.lexsort((ts_ms, users, items))
        users, items, ts_ms, baskets = users[order], items[order], ts_ms[order], baskets[order]
        same_owner = np.concatenate([[False], (items[1:] == items[:-1]) & (users[1:] == users[:-1])])
        repeated = same_owner & np.concatenate([[False], baskets[1:] != baskets[:-1]])
        sold = ~same_owner | repeated
        total = np.bincount(items[sold], minlength=n_items)
        owned = np.bincount(items[~same_owner], minlength=n_items)
        gaps = np.diff(ts_ms, prepend=ts_ms[:1])[repeated] / DAY_MS
        again = np.bincount(items[repeated], minlength=n_items)
        mean_gap = np.bincount(items[repeated], gaps, n_items) / np.maximum(again, 1)
        lately = np.bincount(items[sold & (ts_ms >= until_ms - 28 * DAY_MS)], minlength=n_items)
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
        )

    def save(self, folder: Path) -> None:
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> ItemStats:
        return cls(*(np.load(folder / f"{field.name}.npy", allow_pickle=False) for field in fields(cls)))
