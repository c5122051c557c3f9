"""Every user's state on Redis, for all workers: a view of the log with an exact watermark.

One Redis hash for each release, `{prefix}:state:{release}`:
    seq          how far the log is folded in
    u:{user}     what the user did since the release, rows of `ROW` in the order in which they became the user's; items
                 that the release does not have stand as `late_code`, which each worker reads by its own catalogue
    s:{session}  the user of the session's latest login since the release

A stretch of the log is folded in by one script, and only if the watermark is where the stretch starts; so every event
is folded once, whoever does it. A hash that is not there is a view that holds nothing yet. A Redis that restarts
empty, evicts the hash, or comes back with an old copy of it is therefore behind, is seen to be, and is brought up to
date from the log. Views of releases that no longer answer expire.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from threading import Lock, Thread
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from endcap.core.errors import ServiceError
from endcap.core.types import SESSION_PREFIX, Event, EventType, session_user
from endcap.data.redis_link import RedisAwayError, RedisLink
from endcap.features.ids import UNKNOWN, Vocabulary, basket_key
from endcap.features.live import Known, Read, Stretch
from endcap.features.sequences import NOTHING, REMEMBERED_CODES, Histories, History
from endcap.features.sessions import Fold
from endcap.features.state import MAX_EVENTS

ROW = np.dtype([("item", "<i4"), ("kind", "i1"), ("ts_ms", "<i8"), ("basket", "<u8")])
SEQ = "seq"
EXPIRES_S = 7 * 24 * 3600
AT_ONCE = 2_000  # events folded by one script
MOST_WAITED_FOR = 10_000  # events that an answer waits for; a longer stretch is folded beside the answers
TRIES = 20

_FOLD = """
local at = redis.call('HGET', KEYS[1], 'seq') or ARGV[3]
if at ~= ARGV[1] then return 0 end
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'seq', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""


class SharedStates:
    """Safe to use from several threads and processes. base_seq: the newest event that is in the histories."""

    def __init__(
        self, link: RedisLink, prefix: str, release: str, histories: Histories, items: Vocabulary, base_seq: int
    ) -> None:
        self._link, self._key = link, f"{prefix}:state:{release}"
        self._histories, self._items, self._base_seq = histories, items, base_seq
        self._late, self._known_items = Late(len(items)), len(items)
        self._script = link.client.register_script(_FOLD)
        self._building = Lock()

    def known(self, user_id: str, until_seq: int | None, read: Read) -> Known:
        for _ in range(TRIES):
            found = self._look(user_id)
            behind = 0 if until_seq is None else until_seq - found.seq
            if behind <= 0:
                return found
            if behind > MOST_WAITED_FOR:
                self._build_beside(cast(int, until_seq), read)
                raise RedisAwayError("The states are being built anew.", where=self._link.where)
            self._fold(read(found.seq), found.seq)
        raise RedisAwayError("The states are written faster than they can be read.", where=self._link.where)

    def prepare(self, until_seq: int, read: Read) -> None:
        while (at := self._seq()) < until_seq:
            stretch = read(at)
            if not stretch:
                return
            for start in range(0, len(stretch), AT_ONCE):
                if not self._fold(stretch[start : start + AT_ONCE], at):
                    break  # another worker was faster
                at = stretch[: start + AT_ONCE][-1][0]

    def forget(self) -> None:
        self._link.ask(lambda redis: redis.unlink(self._key))

    def _build_beside(self, until_seq: int, read: Read) -> None:
        """Build in a thread of its own, unless one is at it."""
        if not self._building.acquire(blocking=False):
            return

        def build() -> None:
            try:
                self.prepare(until_seq, read)
            except ServiceError:
                pass  # the next answer that finds the view behind tries again
            finally:
                self._building.release()

        Thread(target=build, name="endcap-states", daemon=True).start()

    def _look(self, user_id: str) -> Known:
        """A shopper's state as it is, all of it from one moment of the view."""
        session = user_id.removeprefix(SESSION_PREFIX) if user_id.startswith(SESSION_PREFIX) else None
        owner = user_id
        while True:
            asked = owner
            seq, login, rows = self._fields(SEQ, f"s:{session or ''}", f"u:{asked}")
            if session is not None:
                owner = login.decode() if login is not None else self._histories.logins.of(session) or user_id
            if owner == asked:
                break
        history = self._late.resolved(joined(self._histories.of(owner), rows or b""), self._items)
        is_known = rows is not None or owner in self._histories.users
        return Known(owner, history, is_known, self._base_seq if seq is None else int(seq))

    def _seq(self) -> int:
        (seq,) = self._fields(SEQ)
        return self._base_seq if seq is None else int(seq)

    def _fields(self, *names: str) -> list[bytes | None]:
        found = self._link.ask(lambda redis: redis.hmget(self._key, list(names)))
        return cast("list[bytes | None]", found)

    def _fold(self, stretch: Stretch, start: int) -> bool:
        """Fold one stretch; False where the watermark was no longer at its start, and nothing was changed."""
        if not stretch:
            return False
        part = stretch[:AT_ONCE]
        events = [event for _, event in part]
        sessions = list(dict.fromkeys(session for event in events if (session := _session_of(event)) is not None))
        at, *logins = self._fields(SEQ, *(f"s:{session}" for session in sessions))
        if (self._base_seq if at is None else int(at)) != start:
            return False
        users_of = {session: login.decode() for session, login in zip(sessions, logins, strict=True) if login}
        fold = _StretchFold(self._histories, self._items, self._known_items, users_of)
        touched = fold.touched(events)
        rows = self._fields(*(f"u:{user}" for user in touched)) if touched else []
        fold.rows = {user: bytearray(row) for user, row in zip(touched, rows, strict=True) if row is not None}
        for event in events:
            fold.fold(event)
        return self._write(start, part[-1][0], fold)

    def _write(self, start: int, end: int, fold: _StretchFold) -> bool:
        fields: list[Any] = []
        for user in fold.changed:
            fields += [f"u:{user}", bounded(bytes(fold.rows.get(user, b"")))]
        for session in fold.logged_in:
            fields += [f"s:{session}", fold.users_of[session]]
        head = (start, end, self._base_seq, EXPIRES_S)
        return bool(self._link.ask(lambda _: self._script(keys=[self._key], args=[*head, *fields])))


class _StretchFold(Fold):
    """Folds a stretch into the fields it touches. rows: user -> packed rows. changed, logged_in: users and sessions
    whose fields are to be written."""

    def __init__(self, histories: Histories, items: Vocabulary, known: int, users_of: dict[str, str]) -> None:
        self._histories, self._items, self._known, self.users_of = histories, items, known, users_of
        self.rows: dict[str, bytearray] = {}
        self.changed: dict[str, None] = {}
        self.logged_in: dict[str, None] = {}

    def touched(self, events: Iterable[Event]) -> list[str]:
        """Every user whose rows the events may read or change."""
        users: dict[str, None] = {}
        for event in events:
            users[event.user_id] = None
            if event.user_id.startswith(SESSION_PREFIX):
                users[self._owner(event.user_id)] = None
            elif event.event_type is EventType.LOGIN and event.session_id is not None:
                users[session_user(event.session_id)] = None
        return list(users)

    def _user_of(self, session_id: str) -> str | None:
        return self.users_of.get(session_id) or self._histories.logins.of(session_id)

    def _log_in(self, session_id: str, user_id: str) -> None:
        self.users_of[session_id] = user_id
        self.logged_in[session_id] = None

    def _move(self, session: str, user_id: str) -> None:
        moved = joined(self._histories.of(session), bytes(self.rows.get(session, b"")))
        self._append(user_id, packed(moved))
        if session in self.rows:
            self.rows[session] = bytearray()
            self.changed[session] = None

    def _add(self, owner: str, event: Event) -> None:
        item, kind = self._items.position(event.item_id), event.event_type.code
        if event.item_id is None or kind not in REMEMBERED_CODES:
            self._append(owner, b"")
            return
        if item == UNKNOWN or item >= self._known:
            item = late_code(event.item_id)
        row = np.array((item, kind, event.ts_ms, basket_key(event.session_id, event.ts_ms)), ROW)
        self._append(owner, row.tobytes())

    def _append(self, owner: str, rows: bytes) -> None:
        self.rows.setdefault(owner, bytearray()).extend(rows)
        self.changed[owner] = None


class Late:
    """Where items stand that the release does not have: known is how many it has. Positions behind these differ from
    worker to worker, so what is shared names such items otherwise."""

    def __init__(self, known: int) -> None:
        self._read, self._position = known, dict[int, int]()

    def resolved(self, history: History, items: Vocabulary) -> History:
        """The history with positions for codes; without what no catalogue has yet."""
        if not len(history) or int(history.items.min()) >= 0:
            return history
        for place in range(self._read, len(items)):
            self._position[late_code(items.ids[place])] = place
            self._read = place + 1
        found = [self._position.get(item, UNKNOWN) if item < 0 else item for item in history.items.tolist()]
        resolved = History(np.array(found, np.int32), history.kinds, history.ts_ms, history.baskets)
        return resolved.take(resolved.items != UNKNOWN)


def late_code(item_id: str) -> int:
    """Below UNKNOWN, within int32. That two items share one is as rare as that 30 bits agree."""
    return UNKNOWN - 1 - (zlib.crc32(item_id.encode()) >> 2)


def joined(base: History, rows: bytes) -> History:
    """A history with packed rows put where their times belong, each after those of the same time."""
    if not rows:
        return base
    live = np.frombuffer(rows, ROW)
    ts_ms = np.concatenate([base.ts_ms, live["ts_ms"]])
    order = np.argsort(ts_ms, kind="stable")
    return History(
        np.concatenate([base.items, live["item"]])[order].astype(np.int32, copy=False),
        np.concatenate([base.kinds, live["kind"]])[order].astype(np.int8, copy=False),
        ts_ms[order],
        np.concatenate([base.baskets, live["basket"]])[order].astype(np.uint64, copy=False),
    )


def packed(history: History) -> bytes:
    rows: NDArray[np.void] = np.empty(len(history), ROW)
    rows["item"], rows["kind"] = history.items, history.kinds
    rows["ts_ms"], rows["basket"] = history.ts_ms, history.baskets
    return rows.tobytes()


def bounded(rows: bytes) -> bytes:
    """The rows, or of very many those that a state keeps."""
    if len(rows) <= 4 * MAX_EVENTS * ROW.itemsize:
        return rows
    return packed(joined(NOTHING, rows).kept(MAX_EVENTS))


def _session_of(event: Event) -> str | None:
    """The session whose login decides about the event, or that it decides about."""
    if event.user_id.startswith(SESSION_PREFIX):
        return event.user_id.removeprefix(SESSION_PREFIX)
    return event.session_id if event.event_type is EventType.LOGIN else None
