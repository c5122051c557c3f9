"""Is told what a shop does and how it stands, and keeps count."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

from endcap.core.slates import release_hash
from endcap.core.types import Event, EventType, Slate
from endcap.monitor.attribution import Act, Attribution
from endcap.monitor.instruments import OTHER, Instruments

MOST_TIMED = 20_000  # answers whose stages wait to be counted
TYPES = frozenset(kind.value for kind in EventType)
MOST_CURRENCIES = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """How a process stands. release: that answers, empty before the first; created_ms: of it. folded_seq: the newest
    event that the shoppers' states hold. commits: seconds and writes of each commit since the last time; failed_commits
    since the start. waiting: writes in the queue. known: ids of the releases there are."""

    ready: bool = False
    release: str = ""
    created_ms: int = 0
    items: int = 0
    users: int = 0
    last_seq: int = 0
    folded_seq: int = 0
    commits: Sequence[tuple[float, int]] = ()
    failed_commits: int = 0
    waiting: int = 0
    known: Collection[str] = ()


class Recorder:
    """Of one shop. Safe to use from several threads; never raises for what it is told."""

    def __init__(self, instruments: Instruments, shop: str) -> None:
        self._to, self._shop = instruments, shop
        self._attribution = Attribution()
        self._releases: dict[int, str] = {}
        self._currencies: set[str] = set()
        self._timed: deque[dict[str, float]] = deque(maxlen=MOST_TIMED)
        self._standing = Lock()
        self._loaded, self._failed_commits = "", 0

    def answered(self, slate: Slate) -> None:
        """A slate was handed out."""
        self._know(slate.release)
        self._to.answers.of(self._shop, slate.placement.value, slate.release).inc()
        for stage in slate.degraded:
            self._to.degraded_answers.of(self._shop, stage).inc()
        if not slate.items:
            self._to.empty_answers.of(self._shop, slate.placement.value).inc()
        self._timed.append(slate.stages)

    def recorded(self, events: Sequence[Event], duplicates: Collection[str]) -> None:
        """Events were taken. duplicates: ids of those that were recorded before."""
        before = set(duplicates)
        fresh = [event for event in events if event.event_id not in before] if before else events
        for event in fresh:
            self._to.events.of(self._shop, event.event_type.value, "accepted").inc()
        if before:
            for event in events:
                if event.event_id in before:
                    self._to.events.of(self._shop, event.event_type.value, "duplicate").inc()
        for act in self._attribution.acts(fresh):
            self._attribute(act)

    def refused(self, event_types: Iterable[str]) -> None:
        """Events were rejected. event_types: of each as it was sent, whatever it is."""
        for kind in event_types:
            self._to.events.of(self._shop, kind if kind in TYPES else OTHER, "rejected").inc()

    def stand(self, now: Standing) -> None:
        """Take down how the process stands at this moment, and what was left to be counted."""
        with self._standing:
            for release in now.known:
                self._know(release)
            self._answers_with(now)
            self._observe_stages()
            self._observe_commits(now)
            self._to.ready.of(self._shop).set(now.ready)
            self._to.log_last_seq.of(self._shop).set(now.last_seq)
            self._to.writer_queue_depth.of(self._shop).set(now.waiting)

    def _answers_with(self, now: Standing) -> None:
        if self._loaded and self._loaded != now.release:
            self._to.release_loaded.of(self._shop, self._loaded).set(0)
        self._loaded = now.release
        if not now.release:
            return
        self._to.release_loaded.of(self._shop, now.release).set(1)
        self._to.release_created_timestamp_seconds.of(self._shop).set(now.created_ms / 1000)
        self._to.release_items.of(self._shop).set(now.items)
        self._to.release_users.of(self._shop).set(now.users)
        self._to.log_lag_events.of(self._shop).set(max(0, now.last_seq - now.folded_seq))

    def _observe_stages(self) -> None:
        """Off the path of the answers, which are encoded by now: that is a stage as well."""
        while self._timed:
            for stage, seconds in self._timed.popleft().copy().items():
                self._to.stage_seconds.of(self._shop, stage).observe(seconds)

    def _observe_commits(self, now: Standing) -> None:
        for seconds, writes in now.commits:
            self._to.commit_seconds.of(self._shop).observe(seconds)
            self._to.commit_requests.of(self._shop).observe(writes)
        self._to.commit_failures.of(self._shop).inc(max(0, now.failed_commits - self._failed_commits))
        self._failed_commits = now.failed_commits

    def _know(self, release: str) -> None:
        self._releases.setdefault(release_hash(release), release)

    def _attribute(self, act: Act) -> None:
        """A release that nobody knows is made up by whoever sent the id, and gets no series of its own."""
        where = (self._shop, act.placement.value, self._releases.get(act.release, OTHER))
        self._to.attributed_items.of(*where, act.kind).inc()
        if act.opens:
            self._to.attributed_slates.of(*where, act.kind).inc()
        if act.revenue > 0:
            self._to.attributed_revenue.of(*where, self._currency(act.currency)).inc(act.revenue)

    def _currency(self, given: str) -> str:
        if given not in self._currencies and len(self._currencies) < MOST_CURRENCIES:
            self._currencies.add(given)
        return (given or "none") if given in self._currencies else OTHER
