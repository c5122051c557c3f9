"""The release that answers, with the state of every shopper kept up with the log."""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock

from endcap.app.publish import Release, read_release, shown_now
from endcap.core.artifacts import ReleaseStore
from endcap.core.errors import NotFoundError
from endcap.core.types import Availability, Context, Query
from endcap.data.store import Store
from endcap.features.ids import UNKNOWN
from endcap.features.live import LiveStates
from endcap.features.sequences import NOTHING
from endcap.features.state import context
from endcap.recommend.select import SlateConfig


@dataclass(slots=True)
class _Held:
    """A release, the states that go with it, and how far they have been brought."""

    release: Release
    states: LiveStates
    seq: int
    items_version: int = -1


class Serving:
    """Follows the release pointer, the log and the catalogue, whichever process writes them.

    Before every answer the newest seq is compared with the one folded last, so an event that was acknowledged, here
    or by another process, is in the next answer.
    """

    def __init__(self, releases: ReleaseStore, store: Store, slate: SlateConfig) -> None:
        self._releases, self._store, self._slate = releases, store, slate
        self._lock = RLock()
        self._held: _Held | None = None

    def current(self) -> tuple[Release, LiveStates]:
        """The published release and the states that go with it, both up to date. NotFoundError before the first."""
        with self._lock:
            wanted = self._releases.current()
            if wanted is None:
                raise NotFoundError(
                    "No release is published.",
                    where=str(self._releases.root),
                    next_step=f"Train one: endcap train --shop {self._releases.workspace}",
                )
            if self._held is None or self._held.release.id != wanted:
                release = read_release(self._releases, wanted, self._slate)
                self._held = _Held(release, LiveStates(release.histories, release.fitted.table.ids), release.seq)
            if self._store.items_version() != self._held.items_version:
                self._read_catalogue(self._held)
            if self._store.last_seq() != self._held.seq:
                newest = self._store.events_after(self._held.seq)
                self._held.states.apply(event for _, event in newest)
                self._held.seq = newest[-1][0] if newest else self._held.seq
            return self._held.release, self._held.states

    def held(self) -> tuple[Release, int] | None:
        """The release that is loaded and the newest seq that its states hold, as they are: nothing is brought up to
        date. None before the first answer."""
        held = self._held
        return None if held is None else (held.release, held.seq)

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

    def _read_catalogue(self, held: _Held) -> None:
        """Stock and visibility as they are now; items that are gone from the catalogue keep the release's word."""
        held.items_version = self._store.items_version()
        table = held.release.fitted.table
        shown = shown_now(table)
        for item_id, availability in self._store.availability():
            place = table.ids.position(item_id)
            if place != UNKNOWN:
                shown[place] = Availability(availability).shown
        held.release.eligible.shown = shown
