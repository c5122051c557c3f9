"""Every user's state while the server runs: the release's histories, plus what was recorded since.

A user who has done nothing since the release was made costs no memory: their slice of the mapped file is the state.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from endcap.core.types import Event
from endcap.features.ids import UNKNOWN, Vocabulary, basket_key
from endcap.features.sequences import NOTHING, Histories, History
from endcap.features.state import UserState


class LiveStates:
    """Safe to use from several threads."""

    def __init__(self, histories: Histories, items: Vocabulary) -> None:
        self._histories, self._items = histories, items
        self._live: dict[str, UserState] = {}
        self._lock = Lock()

    def apply(self, events: Iterable[Event]) -> None:
        """Fold events, in the order given. Those on items the release does not know only make the user known."""
        with self._lock:
            for event in events:
                state = self._live.get(event.user_id)
                if state is None:
                    state = self._live[event.user_id] = UserState(self._histories.of(event.user_id))
                item = self._items.position(event.item_id)
                if item != UNKNOWN:
                    _fold(state, event, item)

    def history(self, user_id: str) -> History:
        """Everything known of a user; empty for a stranger."""
        with self._lock:
            state = self._live.get(user_id)
            return state.history() if state is not None else self._histories.of(user_id)

    def history_with(self, user_id: str | None, unrecorded: Iterable[Event]) -> History:
        """The same with events that count for one answer only."""
        state = UserState(self.history(user_id) if user_id is not None else NOTHING)
        for event in unrecorded:
            item = self._items.position(event.item_id)
            if item != UNKNOWN:
                _fold(state, event, item)
        return state.history()

    def knows(self, user_id: str) -> bool:
        with self._lock:
            return user_id in self._live or user_id in self._histories.users


def _fold(state: UserState, event: Event, item: int) -> None:
    state.apply(item, event.event_type.code, event.ts_ms, basket_key(event.session_id, event.ts_ms))
