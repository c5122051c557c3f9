"""All users' histories in one block of arrays, sorted by user and time.

Legend: e events, u users. A release carries the block, so that the server starts without folding the whole log:
it maps the files and slices a user's part when that user first appears.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.core.types import EVENT_CODES, EventType, Int32Array, Int64Array
from endcap.features.ids import UNKNOWN, Vocabulary, keys64
from endcap.features.sessions import Logins, owned

REMEMBERED = tuple(
    EventType(name) for name in ("view", "click", "add_to_cart", "remove_from_cart", "purchase", "rating", "share")
)
SUCCESSES = tuple(kind for kind in REMEMBERED if kind is not EventType.REMOVE_FROM_CART)
LEAST_PURCHASES, LEAST_SHARE = 20, 0.01
REMEMBERED_CODES = frozenset(kind.code for kind in REMEMBERED)


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """One user's events, oldest first. items int32, kinds int8, ts_ms int64, baskets uint64, all [e]."""

    items: Int32Array
    kinds: NDArray[np.int8]
    ts_ms: Int64Array
    baskets: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.items)

    def before(self, ts_ms: int) -> History:
        """The events strictly earlier than `ts_ms`."""
        return self.take(slice(0, int(np.searchsorted(self.ts_ms, ts_ms, side="left"))))

    def within(self, n_items: int) -> History:
        """The events on the first so many items."""
        return self if not len(self) or int(self.items.max()) < n_items else self.take(self.items < n_items)

    def kept(self, n: int) -> History:
        """The newest `n` purchases and the newest `n` other events, so that browsing does not push orders out."""
        if len(self) <= n:
            return self
        bought = self.kinds == EventType.PURCHASE.code
        newer_bought = np.cumsum(bought[::-1])[::-1]
        newer_other = np.cumsum(~bought[::-1])[::-1]
        return self.take(np.where(bought, newer_bought, newer_other) <= n)

    def successes(self) -> NDArray[np.int64]:
        """Rows that count as success: purchases, or every act but removals where purchases are hardly logged."""
        purchases = np.flatnonzero(self.kinds == EventType.PURCHASE.code)
        acts = np.flatnonzero(self.kinds != EventType.REMOVE_FROM_CART.code)
        return purchases if enough_purchases(len(purchases), len(acts)) else acts

    def take(self, part: slice | NDArray[np.bool_]) -> History:
        return History(self.items[part], self.kinds[part], self.ts_ms[part], self.baskets[part])


NOTHING = History(np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.int64), np.empty(0, np.uint64))


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """Every user's history. offsets: int64 [u + 1]; user r owns the events offsets[r]:offsets[r + 1] of `events`.
    logins: whose each session is that somebody logged in to."""

    users: Vocabulary
    offsets: Int64Array
    events: History
    logins: Logins = field(default_factory=Logins.none)

    @classmethod
    def build(cls, events: pl.LazyFrame, items: Vocabulary) -> Histories:
        """From canonical events in the log's order. Kept are the remembered kinds on known items; ties in time keep the
        order in which the events became the user's."""
        frame = (
            owned(events)
            .filter(pl.col("event_type").is_in([kind.value for kind in REMEMBERED]))
            .select("user_id", "item_id", "event_type", "ts_ms", "session_id")
            .join(items.mapping().lazy().rename({"id": "item_id"}), on="item_id", how="inner", maintain_order="left")
            .sort("user_id", "ts_ms", maintain_order=True)
            .with_columns(kind=pl.col("event_type").replace_strict(EVENT_CODES, return_dtype=pl.Int8))
            .select("user_id", "position", "kind", "ts_ms", "session_id")
            .collect(engine="streaming")
        )
        counts = frame.group_by("user_id", maintain_order=True).len()
        offsets = np.concatenate([[0], np.cumsum(counts["len"].to_numpy())]).astype(np.int64)
        return cls(
            Vocabulary(counts["user_id"].to_list()),
            offsets,
            History(
                frame["position"].to_numpy(),
                frame["kind"].to_numpy(),
                frame["ts_ms"].to_numpy(),
                _basket_keys(frame["session_id"], frame["ts_ms"]),
            ),
            Logins.build(events),
        )

    def __len__(self) -> int:
        return len(self.users)

    def of(self, user_id: str) -> History:
        """A user's history; empty for a stranger."""
        row = self.users.position(user_id)
        return NOTHING if row == UNKNOWN else self.at(row)

    def at(self, row: int) -> History:
        return self.events.take(slice(int(self.offsets[row]), int(self.offsets[row + 1])))

    def until(self, ts_ms: int) -> Histories:
        """The same users with only the events strictly before `ts_ms`."""
        return self._of(self.events.ts_ms[:] < ts_ms)

    def before_last(self, count: int) -> Histories:
        """The same users, each without the last `count` successes, of which one at least stays, and without what else
        they did from the moment of the first of these on."""
        users = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        successes = self.events.successes()
        had = np.bincount(users[successes], minlength=len(self))
        taken = np.minimum(count, had - 1)
        longer = np.flatnonzero(taken > 0)
        first = successes[np.cumsum(had)[longer] - taken[longer]]
        moments = np.full(len(self), np.iinfo(np.int64).max)
        moments[longer] = self.events.ts_ms[first]
        return self._of(self.events.ts_ms[:] < moments[users])

    def _of(self, kept: NDArray[np.bool_]) -> Histories:
        before = np.concatenate([[0], np.cumsum(kept)])
        return Histories(self.users, before[self.offsets].astype(np.int64), self.events.take(kept), self.logins)

    def save(self, folder: Path) -> None:
        self.users.save(folder / "users.parquet")
        np.save(folder / "offsets.npy", self.offsets)
        for name in ("items", "kinds", "ts_ms", "baskets"):
            np.save(folder / f"{name}.npy", getattr(self.events, name))
        self.logins.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Histories:
        """Memory-mapped: pages are read when a user's slice is."""
        arrays = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in ("items", "kinds", "ts_ms", "baskets")
        }
        return cls(
            Vocabulary.load(folder / "users.parquet"),
            np.load(folder / "offsets.npy", allow_pickle=False),
            History(**arrays),
            Logins.load(folder),
        )


def enough_purchases(purchases: int, acts: int) -> bool:
    """Whether purchases can be learned from: one act in a hundred, and 20 in all or, of a short log, a fifth."""
    return purchases >= LEAST_SHARE * acts and (purchases >= LEAST_PURCHASES or 5 * purchases >= acts)


def _basket_keys(sessions: pl.Series, ts_ms: pl.Series) -> NDArray[np.uint64]:
    """`ids.basket_key` of every row, hashing each distinct session once."""
    named = pl.DataFrame({"s": sessions, "t": ts_ms}).select(
        pl.coalesce(pl.col("s"), pl.concat_str(pl.lit("@"), pl.col("t").cast(pl.String))).alias("name")
    )["name"]
    distinct = named.unique()
    keys = pl.DataFrame({"name": distinct, "key": keys64(distinct.to_list())})
    joined = pl.DataFrame({"name": named}).join(keys, on="name", how="left", maintain_order="left")
    return joined["key"].to_numpy()
