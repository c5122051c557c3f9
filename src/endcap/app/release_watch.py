"""Following the release pointer: the old release answers until the new one is ready, and goes on where it never is."""

from __future__ import annotations

import logging
import os
from _thread import LockType
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock, Thread

from endcap.app.live_catalogue import LiveCatalogue
from endcap.app.publish import Release
from endcap.core.artifacts import POINTER, ReleaseStore
from endcap.core.errors import NotFoundError
from endcap.features.live import OnlineStates

LOG = logging.getLogger(__name__)
Stamp = tuple[int, int, int] | None


@dataclass(slots=True, eq=False)
class Held:
    """A release, the states that go with it, its view of the catalogue and which version of it that shows. following:
    held by whoever brings that view up to date."""

    release: Release
    states: OnlineStates
    catalogue: LiveCatalogue
    items_version: int
    following: LockType = field(default_factory=Lock)


class ReleaseWatch:
    """load: reads the release of an id, ready to answer. Safe to use from several threads.

    problem: why the release that the pointer names does not answer; empty where it does.
    """

    def __init__(self, releases: ReleaseStore, load: Callable[[str], Held]) -> None:
        self._releases, self._load = releases, load
        self._pointer = str(releases.root / POINTER)
        self._noticing, self._loading = Lock(), Lock()
        self._held: Held | None = None
        self._seen: Stamp = None
        self.problem = ""

    @property
    def held(self) -> Held | None:
        """What is loaded now; None before the first."""
        return self._held

    def current(self) -> Held:
        """What answers now. Only the first call waits for a release; a later one is loaded beside the answers.

        Before the first release is loaded: NotFoundError where none is published, or what loading raises.
        """
        held = self._held
        if held is None:
            return self._first()
        if self._stamp() != self._seen:
            self._load_beside()
        return held

    def take_up(self) -> None:
        """Load what the pointer names now, in this thread, if a release answers and it is another one."""
        if self._held is None:
            return
        with self._loading:
            self._seen = self._stamp()
            try:
                wanted = self._wanted()
                ready = self._held if wanted == self._held.release.id else self._load(wanted)
                self.problem, self._held = "", ready
            except Exception as error:  # whatever is wrong with a release, the one that answers goes on
                self.problem = f"The published release cannot be loaded; {self._held.release.id} answers. {error}"
                LOG.exception("The published release cannot be loaded; the one before it answers.")

    def _first(self) -> Held:
        with self._loading:
            if self._held is None:
                stamp = self._stamp()
                self._held = self._load(self._wanted())
                self._seen = stamp
            return self._held

    def _load_beside(self) -> None:
        with self._noticing:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            Thread(target=self.take_up, name="endcap-release", daemon=True).start()

    def _wanted(self) -> str:
        wanted = self._releases.current()
        if wanted is None:
            raise NotFoundError(
                "No release is published.",
                where=str(self._releases.root),
                next_step=f"Train one: endcap train --shop {self._releases.workspace}",
            )
        return wanted

    def _stamp(self) -> Stamp:
        """Differs whenever the pointer was written: it is replaced, never changed in place."""
        try:
            found = os.stat(self._pointer)  # noqa: PTH116 - asked before every answer, and a third of the time of Path
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
