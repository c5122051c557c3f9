"""What a shop tells whoever watches over it, and how a process stands. Prometheus is imported by who asks for it alone.

One process keeps its counts in memory. Several workers of one server keep theirs in files of a folder that
`shared_counts` makes and names to them in the environment; whichever is asked for metrics adds them up.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from endcap.core.errors import EndcapError
from endcap.core.types import Event, Slate

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from endcap.app.runtime import Shop
    from endcap.monitor.instruments import Instruments
    from endcap.monitor.recorder import Standing

LOG = logging.getLogger(__name__)
SHARED = "PROMETHEUS_MULTIPROC_DIR"


class Watch(Protocol):
    """Is told what a shop does. Must not raise: what it is told of is done already."""

    def answered(self, slate: Slate) -> None: ...

    def recorded(self, events: Sequence[Event], duplicates: Collection[str]) -> None: ...

    def refused(self, event_types: Iterable[str]) -> None: ...


def instruments(registry: CollectorRegistry) -> Instruments:
    """The metrics of all shops of a process. Once for each registry."""
    from endcap.monitor.instruments import Instruments

    return Instruments(registry)


class Watched:
    """A shop that tells what it does, under the name of its workspace's folder, until the end."""

    def __init__(self, instruments: Instruments, shop: Shop) -> None:
        from endcap.monitor.recorder import Recorder

        self._shop, self._recorder = shop, Recorder(instruments, shop.folder.resolve().name)
        shop.watch = self._recorder

    def look(self) -> None:
        """Take down how the shop stands now. Never raises: what cannot be read is left out, as it is asked when things
        are broken."""
        from endcap.monitor.recorder import Standing

        commits = self._shop.store.commits
        written = Standing(
            commits=_taken(commits.counts.recent) if commits else (),
            failed_commits=commits.counts.failed if commits else 0,
            waiting=commits.waiting if commits else 0,
        )
        try:
            self._recorder.stand(_standing(self._shop, written))
        except Exception as error:  # asked when things are broken, as health is
            LOG.debug("The shop cannot be looked at: %s", error)
            self._recorder.stand(written)

    def end(self) -> None:
        self._shop.watch = None


def _standing(shop: Shop, written: Standing) -> Standing:
    """With what the release and the log say."""
    held, last_seq = shop.held(), _last_seq(shop)
    now = replace(
        written,
        last_seq=last_seq or 0,
        known=tuple(path.parent.name for path in shop.releases.root.glob("*/manifest.json")),
    )
    if held is None:
        return now
    release, folded = held
    return replace(
        now,
        ready=shop.store.commits is not None and last_seq is not None,
        release=release.id,
        created_ms=release.manifest.created_ms,
        items=len(release.fitted.table),
        users=len(release.histories),
        folded_seq=folded,
    )


def _last_seq(shop: Shop) -> int | None:
    """None while the log is away."""
    try:
        return shop.store.last_seq()
    except EndcapError:
        return None


@contextmanager
def shared_counts() -> Iterator[None]:
    """For a server of several workers, around the start of them: a fresh folder for their counts, gone at the end. It
    has to be entered before anything imports `prometheus_client`, which looks once whether there is one."""
    with TemporaryDirectory(prefix="endcap-counts-") as folder:
        os.environ[SHARED] = folder
        try:
            yield
        finally:
            del os.environ[SHARED]


def _taken(recent: deque[tuple[float, int]]) -> list[tuple[float, int]]:
    """What is in a deque, taken out of it while others may put more in."""
    found = []
    try:
        while True:
            found.append(recent.popleft())
    except IndexError:
        return found
