"""Which items a user knows: those they did anything with, shown ones among them."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

from endcap.data.store import Store

USERS = 10_000


class _Known(NamedTuple):
    """since: when each item was first known, UTC milliseconds, the one heard of last at the end. seq: until where."""

    seq: int
    since: dict[str, int]


class KnownItems:
    """Read from the log when a user is first asked for, and kept up with it from then on; remembered for the users who
    were asked for last. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, Lock()
        self._held: OrderedDict[str, _Known] = OrderedDict()

    def of(self, user_id: str, now_ms: int) -> list[str]:
        """The items known at a moment, the one heard of last first. Acts of later, as write-backs are, do not count."""
        with self._lock:
            held = self._held.get(user_id, _Known(0, {}))
        seq, since = self._store.last_seq(), dict(held.since)
        for at, event in self._store.events_of([user_id], held.seq):
            seq = max(seq, at)
            if event.item_id is not None:
                since[event.item_id] = min(event.ts_ms, since.pop(event.item_id, event.ts_ms))
        with self._lock:
            self._held[user_id] = _Known(seq, since)
            self._held.move_to_end(user_id)
            if len(self._held) > USERS:
                self._held.popitem(last=False)
        return [item_id for item_id, ts_ms in reversed(since.items()) if ts_ms <= now_ms]
