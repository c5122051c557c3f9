"""Who changed what answers, who may ask, and what is kept: one line of JSON for each such act, in the workspace.

Acts are written by the functions that do them, so that they read the same whether they were asked for over HTTP, from
Python or on the command line. The file is appended to and flushed to disk, and only its owner can read it.
"""

from __future__ import annotations

import getpass
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from endcap.core.errors import EndcapError, ServiceError

if TYPE_CHECKING:
    from endcap.core.determinism import Clock

FILE = "audit.jsonl"
DONE = "done"
_ACTOR: ContextVar[str] = ContextVar("actor", default="")


class Act(msgspec.Struct, frozen=True):
    """ts_ms: UTC milliseconds, when it ended. who: `key:<id>`, `cli:<user of the system>` or `python:<user>`. what: for
    example "publish". on: a release, a key, an item. outcome: "done", or "failed: " and why."""

    ts_ms: int
    who: str
    what: str
    on: str
    outcome: str


@contextmanager
def acting(who: str) -> Iterator[None]:
    """Whoever is named here did what happens inside, in this thread or task and in those that it waits for."""
    before = _ACTOR.set(who)
    try:
        yield
    finally:
        _ACTOR.reset(before)


def system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def disguised(user_id: str) -> str:
    """A shopper in the audit log: whoever knows the id can find the act, and nobody reads the id there."""
    return f"user sha256:{hashlib.sha256(user_id.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


class AuditLog:
    """The acts of one workspace. Any number of processes may write."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.path, self._clock = folder / FILE, clock

    @contextmanager
    def act(self, what: str, on: str) -> Iterator[None]:
        """Writes that what happens inside was done, or why it failed."""
        try:
            yield
        except Exception as error:
            why = error.what if isinstance(error, EndcapError) else type(error).__name__
            self.write(what, on, f"failed: {why}")
            raise
        self.write(what, on, DONE)

    def write(self, what: str, on: str, outcome: str = DONE) -> None:
        """Append one act; when this returns it is on disk. ServiceError where it cannot be written."""
        who = _ACTOR.get() or f"python:{system_user()}"
        line = msgspec.json.encode(Act(self._clock(), who, what, on, outcome)) + b"\n"
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if _is_torn(handle):
                    line = b"\n" + line
                os.write(handle, line)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise ServiceError(
                f"{what} on {on or 'the shop'} ({outcome}) cannot be written to the audit log: {error.strerror}.",
                where=str(self.path),
                next_step="See that the disk works and has space.",
            ) from error

    def read(self) -> list[Act]:
        """Every act, oldest first. A line that a crash cut short is left out."""
        if not self.path.is_file():
            return []
        acts = []
        for line in self.path.read_bytes().splitlines():
            try:
                acts.append(msgspec.json.decode(line, type=Act))
            except msgspec.MsgspecError:
                continue
        return acts


def _is_torn(handle: int) -> bool:
    """Whether the last line has no end, as a crash in the middle of writing leaves it."""
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"
