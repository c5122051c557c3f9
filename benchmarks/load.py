"""A bounded load on an HTTP server: so many clients, each sending its next request when it has the last answer.

The driver (`benchmarks.driver`) is a process of its own, so that it shares no interpreter with what it measures;
`drive` starts it on a core of its own.

    plan: where, how many clients, how many requests or seconds, what to send
    found: every latency in nanoseconds, every status, and of answers that were asked to be kept, the bodies

With `retry`, what was not acknowledged is sent again, unchanged, over a new connection, until it is: for tests in which
the server is killed. Such a driver ends when it is told to (SIGTERM) and has an answer for all that it sent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from endcap.core.types import Int64Array

READ, WRITE = 0, 1
CORES = "ENDCAP_CORES"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. reads: whole requests, taken in turn from a place drawn for each client. writes: a share of the
    requests, 0 to 1. write: the request of an event, with `{id}` where a number of its own goes; its Content-Length is
    added. batch: events in a request. One of requests and seconds says when to stop; neither: when told to.
    keep: how many bodies of reads are kept. names: prefix of the event ids, so that two runs differ. journal: a file
    that takes the id of each event as it is acknowledged, a line each."""

    host: str = "127.0.0.1"
    port: int
    clients: int = 1
    requests: int = 0
    seconds: float = 0.0
    reads: list[str] = []
    writes: float = 0.0
    write: str = ""
    events: list[str] = []
    batch: int = 1
    names: str = "load"
    keep: int = 0
    journal: str = ""
    retry: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """latencies: int64 [n], nanoseconds. kinds: int8 [n], READ or WRITE. statuses: int16 [n], 0 where the connection
    broke. ended: int64 [n], when each answer was there, nanoseconds since the driver began. sent_again: how often.
    acknowledged: ids of events that an answer names as recorded, where there is a journal. bodies: of reads, status
    200, each after the place of its request in `reads`."""

    latencies: Int64Array
    kinds: Int64Array
    statuses: Int64Array
    ended: Int64Array
    seconds: float
    driver_cpu: float
    sent_again: int
    acknowledged: list[str]
    bodies: list[tuple[int, bytes]]

    def of(self, kind: int) -> Int64Array:
        """Latencies of answers that came, of one kind."""
        return self.latencies[(self.kinds == kind) & (self.statuses > 0)]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return float((self.statuses > 0).sum()) / self.seconds

    @property
    def failed(self) -> int:
        """Answers that were no success, and connections that broke."""
        return int(((self.statuses < 200) | (self.statuses >= 300)).sum())


def percentiles(latencies: Int64Array) -> dict[str, float]:
    """p50, p95, p99 and max, in milliseconds; NaN where there are none."""
    if not len(latencies):
        return dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "max_ms"), float("nan"))
    found = np.percentile(latencies, [50, 95, 99, 100]) / 1e6
    return dict(zip(("p50_ms", "p95_ms", "p99_ms", "max_ms"), found.tolist(), strict=True))


def get(path: str, host: str = "127.0.0.1") -> str:
    """A whole request."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"


def post(path: str, body: str, host: str = "127.0.0.1") -> str:
    """A whole request with JSON."""
    size = len(body.encode())
    kind = "Content-Type: application/json"
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{kind}\r\nContent-Length: {size}\r\n\r\n{body}"


def cores() -> tuple[int, int]:
    """For the server and for the driver: what ENDCAP_CORES says (`0,1`), or the first and the last there are."""
    said = os.environ.get(CORES)
    if said:
        server, driver = (int(core) for core in said.split(","))
        return server, driver
    there = sorted(os.sched_getaffinity(0))
    return there[0], there[-1]


def drive(plan: Plan) -> Found:
    """Run the plan in a process of its own, to its end."""
    with driving(plan) as running:
        pass
    return running.found


@dataclass(slots=True)
class Running:
    """A driver at work. found: there once the block has been left."""

    process: subprocess.Popen[bytes]
    place: Path
    is_endless: bool
    _found: list[Found] = field(default_factory=list)

    @property
    def found(self) -> Found:
        return self._found[0]

    def finish(self) -> None:
        if self.is_endless and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        if self.process.wait():
            raise RuntimeError(f"The driver ended with {self.process.returncode}.")
        self._found.append(_read(self.place))


@contextmanager
def driving(plan: Plan) -> Iterator[Running]:
    """Run the plan beside what is done in the block; leaving it waits for the end, or tells an endless one to stop."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "plan.json").write_bytes(msgspec.json.encode(plan))
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.driver", str(place), str(cores()[1])])
        running = Running(process, place, not (plan.requests or plan.seconds))
        try:
            _until(lambda: (place / "begun").exists() or process.poll() is not None)
            yield running
            running.finish()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.005)


def _read(place: Path) -> Found:
    arrays = np.load(place / "found.npz")
    about = msgspec.msgpack.decode((place / "found.msgpack").read_bytes())
    return Found(
        **{name: arrays[name].astype(np.int64) for name in ("latencies", "kinds", "statuses", "ended")},
        seconds=about["seconds"],
        driver_cpu=about["driver_cpu"],
        sent_again=about["sent_again"],
        acknowledged=about["acknowledged"],
        bodies=[(place, body) for place, body in about["bodies"]],
    )
