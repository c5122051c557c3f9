"""The release that answers, with the state of every shopper kept up with the log, whatever of it may be away.

What an answer had to do without is named in `degraded`:
    release        the published release cannot be loaded; the one before it answers
    event_log      the log or the catalogue cannot be read; the state is the one of before
    online_state   Redis cannot be asked; the shopper's own events are read from the log
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from endcap.app.live_catalogue import LiveCatalogue
from endcap.app.publish import Release, read_release
from endcap.app.release_watch import Held, ReleaseWatch
from endcap.app.state import in_process
from endcap.core.artifacts import ReleaseStore
from endcap.core.breaker import Breaker
from endcap.core.errors import EndcapError, ServiceError, TooManyError
from endcap.core.faults import origin
from endcap.core.types import Context, EventType, Query, session_user
from endcap.data.redis_link import RedisAwayError
from endcap.data.store import Store
from endcap.features.ids import UNKNOWN
from endcap.features.live import FOLLOW_TIMEOUT_S, Known, LiveStates, OnlineStates, with_acts
from endcap.features.sequences import NOTHING
from endcap.features.state import context
from endcap.recommend.select import SlateConfig

LOG = logging.getLogger(__name__)
T = TypeVar("T")
AWAY = (ServiceError, TooManyError)  # what a store raises that fails, is away, or has too many waiting
RELEASE, EVENT_LOG, ONLINE_STATE = PARTS = ("release", "event_log", "online_state")


class Moment(NamedTuple):
    """All that answers a query. degraded: parts that were away."""

    release: Release
    context: Context
    degraded: tuple[str, ...]


class Seen(NamedTuple):
    """What is known of a shopper, by the release that answers."""

    release: Release
    known: Known
    degraded: tuple[str, ...]


class Standing(NamedTuple):
    """How things are. last_seq: the log's newest event, 0 while it is away. problem: a sentence where one is known."""

    release: Release
    last_seq: int
    degraded: tuple[str, ...]
    problem: str


class Serving:
    """Follows the release pointer, the log and the catalogue, whichever process writes them.

    Before every answer the log's newest seq is compared with the one that the state holds, so an event that was
    acknowledged, here or by another process, is in the next answer.
    """

    def __init__(
        self,
        releases: ReleaseStore,
        store: Store,
        slate: SlateConfig,
        states: Callable[[Release], OnlineStates] = in_process,
    ) -> None:
        self._releases, self._store, self._slate, self._states = releases, store, slate, states
        self._watch = ReleaseWatch(releases, self._load)
        self._log = Breaker()
        self._log_problem = ""

    def current(self) -> tuple[Release, OnlineStates]:
        """The release that answers, its catalogue up to date, and its states. NotFoundError before the first."""
        held = self._held(set())[0]
        return held.release, held.states

    def is_at_hand(self) -> bool:
        """Whether nothing was recorded and no item has changed that is not taken over yet, however much it might be.
        False before the first answer, and while the log is away."""
        held = self._watch.held
        position = None if held is None else self._read(self._store.position)
        if held is None or position is None or position[1] != held.items_version:
            return False
        return position[0] <= held.states.known("", None, self._store.events_after).seq

    def held(self) -> tuple[Release, int] | None:
        """The release that is loaded and the newest seq that its states hold, as they are: nothing is brought up to
        date. None before the first answer. While the states are away, the seq is that of the release."""
        held = self._watch.held
        if held is None:
            return None
        try:
            return held.release, held.states.known("", None, self._store.events_after).seq
        except AWAY:
            return held.release, held.release.seq

    def load(self) -> None:
        """Load the published release, if none is loaded yet. Raises as `current` does."""
        if self._watch.held is None:
            self._watch.current()

    def take_up(self) -> None:
        """Load what was just published, if a release answers, so that the next answer is the new one's."""
        self._watch.take_up()

    def known(self, user_id: str) -> Seen:
        """A shopper's state, every acknowledged event in it; a session's by `core.types.session_user`."""
        lacks: set[str] = set()
        held, until = self._held(lacks)
        known = self._known(held, user_id, until, lacks)
        return Seen(held.release, known, _ordered(lacks))

    def context(self, query: Query, now_ms: int) -> Moment:
        """Everything known at the moment of a query, and the release that is to answer it."""
        lacks: set[str] = set()
        held, until = self._held(lacks)
        asked = query.user_id or (session_user(query.session_id) if query.session_id else None)
        known = None if asked is None else self._known(held, asked, until, lacks)
        history = NOTHING if known is None else known.history
        release, ids = held.release, held.release.fitted.table.ids
        if query.session_events:
            history = with_acts(history, query.session_events, ids)
        if query.now_ms is not None:
            history = history.before(now_ms + 1)
        history = history.within(len(release.eligible.shown))
        at_this_moment = context(
            history,
            now_ms,
            query.placement,
            cart=ids.positions(dict.fromkeys(query.cart)) if query.cart else None,
            anchor=ids.position(query.item_id),
            row=UNKNOWN if known is None else release.histories.users.position(known.owner),
        )
        return Moment(release, at_this_moment, _ordered(lacks))

    def titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        """item_id -> title, of the catalogue, or of the release while the catalogue is away."""
        found = self._read(lambda: self._store.titles(item_ids))
        if found is not None:
            return found
        table = self._watch.current().release.fitted.table
        places = {item_id: table.ids.position(item_id) for item_id in item_ids}
        return {item_id: str(table.frame["title"][at]) for item_id, at in places.items() if at != UNKNOWN}

    def standing(self) -> Standing:
        """Raises as `current` does."""
        lacks: set[str] = set()
        held, until = self._held(lacks)
        self._known(held, "", until, lacks)
        problems = [self._watch.problem, self._log_problem if EVENT_LOG in lacks else ""]
        return Standing(held.release, until or 0, _ordered(lacks), " ".join(filter(None, problems)))

    def _load(self, release_id: str) -> Held:
        release = read_release(self._releases, release_id, self._slate)
        catalogue = LiveCatalogue(release)
        held = Held(release, self._states(release), catalogue, catalogue.since)
        position = self._read(self._store.position)
        if position is None:
            self._hide_as_before(held)
            return held
        try:
            self._show(held, position[1])
            held.states.prepare(position[0], self._store.events_after)
        except AWAY as error:
            self._hide_as_before(held)
            LOG.warning("The release %s answers before its states are up to date: %s", release_id, error)
        return held

    def _hide_as_before(self, held: Held) -> None:
        """Of a release that is loaded while the catalogue cannot be read: what the one before it knew to be hidden."""
        before = self._watch.held
        if before is None:
            return
        table = before.release.fitted.table
        hidden = (~before.release.eligible.shown[: len(table)]).nonzero()[0]
        names = (table.ids.ids[item] for item in hidden.tolist())
        held.release.eligible.shown[held.release.fitted.table.ids.positions(names)] = False

    def _held(self, lacks: set[str]) -> tuple[Held, int | None]:
        """What answers, its catalogue up to date, and the log's newest seq; None while the log is away."""
        held = self._watch.current()
        if self._watch.problem:
            lacks.add(RELEASE)
        position = self._read(self._store.position)
        if position is None:
            lacks.add(EVENT_LOG)
            return held, None
        if position[1] != held.items_version:
            try:
                if not self._show(held, position[1]):
                    lacks.add(EVENT_LOG)
            except AWAY as error:
                self._log_failed(error)
                lacks.add(EVENT_LOG)
            except Exception as error:  # answers by an older catalogue, which say so, beat none
                LOG.error("The catalogue cannot be taken over: %s", origin(error))
                lacks.add(EVENT_LOG)
        return held, position[0]

    def _known(self, held: Held, user_id: str, until: int | None, lacks: set[str]) -> Known:
        try:
            known = held.states.known(user_id, until, self._store.events_after)
            if until is not None and known.seq > max(until, held.release.seq) and self._is_of_another_log(known):
                held.states.forget()
                known = held.states.known(user_id, until, self._store.events_after)
        except RedisAwayError:
            lacks.add(ONLINE_STATE)
            return self._from_log(held, user_id, until, lacks)
        except AWAY as error:
            if until is None:
                raise
            self._log_failed(error)
            lacks.add(EVENT_LOG)
            return self._known(held, user_id, None, lacks)
        return known

    def _is_of_another_log(self, known: Known) -> bool:
        """Whether the states hold more than the log does: it was restored from a backup."""
        newest = self._read(self._store.last_seq)  # asked of the log itself: a position may be a moment old
        return newest is not None and newest < known.seq

    def _from_log(self, held: Held, user_id: str, until: int | None, lacks: set[str]) -> Known:
        """What the shopper did under their own id. What a login brought since the release is left out: whether the
        session was another's before is not seen from here."""
        states = LiveStates(held.release.histories, held.release.fitted.table.ids, held.release.seq)
        known = states.known(user_id, None, self._store.events_after)
        if until is None:
            return known
        asked = list(dict.fromkeys((user_id, known.owner)))
        found = self._read(lambda: self._store.events_of(asked, held.release.seq))
        if found is None:
            lacks.add(EVENT_LOG)
            return known
        states.apply(event for _, event in found if event.event_type is not EventType.LOGIN)
        return states.known(user_id, None, self._store.events_after)

    def _read(self, question: Callable[[], T]) -> T | None:
        """What the store answers; None while it is away, which costs a wait only now and then."""
        if not self._log.allows():
            return None
        try:
            answer = question()
        except AWAY as error:
            self._log_failed(error)
            return None
        self._log.worked()
        return answer

    def _log_failed(self, error: EndcapError) -> None:
        if not self._log.is_open:
            LOG.warning("The event log cannot be read; answers go on without it: %s", error)
        self._log_problem = str(error)
        self._log.failed()

    def _show(self, held: Held, version: int) -> bool:
        """The catalogue as it is now; items that are gone from it keep the release's word. False where somebody else
        is at it for longer than an answer can wait."""
        if not held.following.acquire(timeout=FOLLOW_TIMEOUT_S):
            return False
        try:
            if version == held.items_version:
                return True
            since = held.items_version if version > held.items_version else 0  # behind it: another one, restored
            now_at, changed = self._store.items_changed(since)
            held.catalogue.apply(changed)
            held.release = held.catalogue.release
            held.items_version = now_at  # last: whoever sees it answers by what was applied
            return True
        finally:
            held.following.release()


def _ordered(lacks: set[str]) -> tuple[str, ...]:
    return tuple(part for part in PARTS if part in lacks) if lacks else ()
