"""Every user's state while the server runs, in this process: the release's histories, plus what was recorded since.

A user who has done nothing since the release was made costs no memory: their slice of the mapped file is the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import NamedTuple, Protocol

from endcap.core.errors import ServiceError
from endcap.core.types import Event
from endcap.features.ids import UNKNOWN, Vocabulary, basket_key
from endcap.features.sequences import Histories, History
from endcap.features.sessions import Fold
from endcap.features.state import UserState

Stretch = list[tuple[int, Event]]
Read = Callable[[int], Stretch]
FOLLOW_TIMEOUT_S = 1.0


class Known(NamedTuple):
    """What is known of a shopper. owner: the user id that a session belongs to, otherwise the id that was asked.
    is_known: whether anything was ever recorded of them. seq: how far the log is in it."""

    owner: str
    history: History
    is_known: bool
    seq: int


class OnlineStates(Protocol):
    """The states that go with one release: a view of the log, brought up to date before it is read."""

    def known(self, user_id: str, until_seq: int | None, read: Read) -> Known:
        """A shopper's state with every event up to a seq; None takes it as it is.

        read: the events after a seq, in order. Raises what `read` does, and ServiceError where the states are away.
        """
        ...

    def prepare(self, until_seq: int, read: Read) -> None:
        """Fold the log up to a seq, however much that is. Raises as `known` does."""
        ...

    def forget(self) -> None:
        """Drop the view, so that it is built anew: for a log that is not the one it was built from."""
        ...


class LiveStates(Fold):
    """Safe to use from several threads. seq: the newest event that is in the histories."""

    def __init__(self, histories: Histories, items: Vocabulary, seq: int = 0) -> None:
        self._histories, self._items, self._base_seq = histories, items, seq
        self._lock, self._following = Lock(), Lock()
        self._live: dict[str, UserState] = {}
        self._users_of: dict[str, str] = {}
        self._seq = seq

    def forget(self) -> None:
        with self._following, self._lock:
            self._live.clear()
            self._users_of.clear()
            self._seq = self._base_seq

    def apply(self, events: Iterable[Event]) -> None:
        """Fold events, in the order given. Those on items the release does not know only make the user known."""
        with self._lock:
            for event in events:
                self.fold(event)

    def known(self, user_id: str, until_seq: int | None, read: Read) -> Known:
        if until_seq is not None and until_seq > self._seq:
            self.prepare(until_seq, read)
        with self._lock:
            owner = self._owner(user_id)
            state = self._live.get(owner)
            history = self._histories.of(owner) if state is None else state.history()
            return Known(owner, history, state is not None or owner in self._histories.users, self._seq)

    def prepare(self, until_seq: int, read: Read) -> None:
        if not self._following.acquire(timeout=FOLLOW_TIMEOUT_S):
            raise ServiceError(
                "The log is read too slowly to wait for.", next_step="See that its disk or server works."
            )
        try:
            if until_seq <= self._seq:
                return
            # nothing beyond: what an act is on may have come to the catalogue with it
            stretch = [(seq, event) for seq, event in read(self._seq) if seq <= until_seq]
            self.apply(event for _, event in stretch)
            self._seq = stretch[-1][0] if stretch else self._seq
        finally:
            self._following.release()

    def history(self, user_id: str) -> History:
        """Everything known of a user, as it is; empty for a stranger."""
        return self.known(user_id, None, lambda _: []).history

    def _user_of(self, session_id: str) -> str | None:
        return self._users_of.get(session_id) or self._histories.logins.of(session_id)

    def _log_in(self, session_id: str, user_id: str) -> None:
        self._users_of[session_id] = user_id

    def _move(self, session: str, user_id: str) -> None:
        left = self._live.pop(session, None)
        moved = self._histories.of(session) if left is None else left.history()
        state = self._state(user_id)
        rows = zip(*(column.tolist() for column in (moved.items, moved.kinds, moved.ts_ms, moved.baskets)), strict=True)
        for item, kind, ts_ms, basket in rows:
            state.apply(item, kind, ts_ms, basket)

    def _add(self, owner: str, event: Event) -> None:
        state = self._state(owner)
        item = self._items.position(event.item_id)
        if item != UNKNOWN:
            fold_into(state, event, item)

    def _state(self, user_id: str) -> UserState:
        state = self._live.get(user_id)
        if state is None:
            state = self._live[user_id] = UserState(self._histories.of(user_id))
        return state


def with_acts(history: History, unrecorded: Iterable[Event], items: Vocabulary) -> History:
    """A history with events that count for one answer only."""
    state = UserState(history)
    for event in unrecorded:
        item = items.position(event.item_id)
        if item != UNKNOWN:
            fold_into(state, event, item)
    return state.history()


def fold_into(state: UserState, event: Event, item: int) -> None:
    state.apply(item, event.event_type.code, event.ts_ms, basket_key(event.session_id, event.ts_ms))
