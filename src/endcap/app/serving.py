"""The release that answers, with the state of every shopper kept up with the log."""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock

import numpy as np

from endcap.app.publish import Release, read_release, shown_now
from endcap.core.artifacts import ReleaseStore
from endcap.core.errors import NotFoundError
from endcap.core.types import Context, Event, Query
from endcap.data.store import Store
from endcap.features.items import ItemTable
from endcap.features.live import LiveStates
from endcap.features.sequences import NOTHING
from endcap.features.state import context


class Serving:
    """Follows the release pointer, the log and the catalogue, whichever process writes them.

    Before every answer the newest seq is compared with the one folded last, so an event that was acknowledged, here
    or by another process, is in the next answer.
    """

    def __init__(self, releases: ReleaseStore, store: Store) -> None:
        self._releases, self._store = releases, store
        self._lock = RLock()
        self._held: tuple[Release, LiveStates] | None = None
        self._seq = 0
        self._items_version = -1

    def current(self) -> tuple[Release, LiveStates]:
        """The published release and the states that go with it, both up to date. NotFoundError before the first."""
        wanted = self._releases.current()
        if wanted is None:
            raise NotFoundError(
                "No release is published.", where=str(self._releases.root), next_step="Train one: endcap train"
            )
        held = self._held
        if held is None or held[0].id != wanted:
            held = self._load(wanted)
        if self._store.items_version() != self._items_version:
            self._read_catalogue(held[0])
        if self._store.last_seq() != self._seq:
            self._catch_up(held[1])
        return held

    def context(self, query: Query, now_ms: int) -> tuple[Release, Context]:
        """Everything known at the moment of a query, and the release that is to answer it."""
        release, states = self.current()
        ids = release.fitted.table.ids
        if query.session_events:
            history = states.history_with(query.user_id, query.session_events)
        else:
            history = NOTHING if query.user_id is None else states.history(query.user_id)
        cart = ids.positions(dict.fromkeys(query.cart)) if query.cart else None
        if query.now_ms is not None:
            history = history.before(now_ms + 1)
        return release, context(
            history,
            now_ms,
            query.placement,
            cart=cart,
            anchor=ids.position(query.item_id),
            row=release.histories.users.position(query.user_id),
        )

    def _load(self, release_id: str) -> tuple[Release, LiveStates]:
        with self._lock:
            if self._held is not None and self._held[0].id == release_id:
                return self._held
            release = read_release(self._releases, release_id)
            states = LiveStates(release.histories, release.fitted.table.ids)
            self._read_catalogue(release)
            self._seq = _fold(states, self._store.events_after(release.seq), release.seq)
            self._held = (release, states)
            return self._held

    def _catch_up(self, states: LiveStates) -> None:
        with self._lock:
            self._seq = _fold(states, self._store.events_after(self._seq), self._seq)

    def _read_catalogue(self, release: Release) -> None:
        """Stock and visibility as they are now; items that are gone from the catalogue keep the release's word."""
        with self._lock:
            self._items_version = self._store.items_version()
            now = ItemTable.build(self._store.items())
            shown = shown_now(release.fitted.table)
            places = np.array([release.fitted.table.ids.position(name) for name in now.ids.ids], np.int64)
            known = places >= 0
            shown[places[known]] = shown_now(now)[known]
            release.eligible.shown = shown


def _fold(states: LiveStates, events: Iterable[tuple[int, Event]], seq: int) -> int:
    """Apply events in the order of the log; returns the seq of the last one."""
    newest = list(events)
    states.apply(event for _, event in newest)
    return newest[-1][0] if newest else seq
