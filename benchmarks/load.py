"""A bounded load on an HTTP server: so many clients, each sending its next request when it has the last answer.

The driver is a process of its own, so that it shares no interpreter with what it measures; `drive` starts it on a core
of its own. It speaks HTTP/1.1 over kept connections by itself: a client library would take more time than the server.

    plan: where, how many clients, how many requests or seconds, what to send
    found: every latency in nanoseconds, every status, and of answers that were asked to be kept, the bodies

With `retry`, what was not acknowledged is sent again, unchanged, over a new connection, until it is: for tests in which
the server is killed. Such a driver ends when it is told to (SIGTERM) and has an answer for all that it sent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import msgspec
import numpy as np

from endcap.core.types import Int64Array

READ, WRITE = 0, 1
AGAIN_S = 0.05
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
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
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n{body}"


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
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.load", str(place), str(cores()[1])])
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


@dataclass(frozen=True, slots=True)
class Request:
    """text: as it goes over the wire. place: of a read, among the plan's."""

    kind: int
    text: bytes
    place: int = -1


class Driver:
    """What all clients of a plan share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reads = [text.encode() for text in plan.reads]
        self.draw = np.random.default_rng(plan.seed)
        self.latencies: list[int] = []
        self.kinds: list[int] = []
        self.statuses: list[int] = []
        self.ended: list[int] = []
        self.bodies: list[tuple[int, bytes]] = []
        self.acknowledged: list[str] = []
        self.sent_again = self.numbered = self.begun = 0
        self.stops = False
        self.left = plan.requests or -1
        self.began = time.perf_counter_ns()
        self.until = self.began + int(plan.seconds * 1e9) if plan.seconds else 0
        self.journal = open(plan.journal, "a", encoding="utf-8") if plan.journal else None  # noqa: SIM115 - to the end
        self._lots = self.draw.random(65536).tolist()

    @property
    def is_over(self) -> bool:
        return self.stops or self.left == 0 or (self.until > 0 and time.perf_counter_ns() >= self.until)

    def next(self, place: int) -> Request | None:
        """The next request of a client that is at a place of the reads."""
        if self.is_over:
            return None
        self.left -= 1
        self.begun += 1
        if self.plan.writes and self._lots[self.begun % len(self._lots)] < self.plan.writes:
            return self._write()
        place %= len(self.reads)
        return Request(READ, self.reads[place], place)

    def _write(self) -> Request:
        plan, names = self.plan, []
        parts = []
        for _ in range(plan.batch):
            names.append(f"{plan.names}-{self.numbered}")
            parts.append(plan.events[self.numbered % len(plan.events)].replace("{id}", names[-1]))
            self.numbered += 1
        body = parts[0] if plan.batch == 1 else '{"events": [' + ",".join(parts) + "]}"
        return Request(WRITE, post(plan.write, body).encode())

    def record(self, request: Request, status: int, latency: int, body: bytes) -> None:
        now = time.perf_counter_ns() - self.began
        self.latencies.append(latency)
        self.kinds.append(request.kind)
        self.statuses.append(status)
        self.ended.append(now)
        if request.kind == READ and status == 200 and len(self.bodies) < self.plan.keep:
            self.bodies.append((request.place, body))
        if self.journal is not None and request.kind == WRITE and status == 200:
            said = msgspec.json.decode(body)
            recorded = [*said["accepted"], *said.get("duplicates", ())]
            self.acknowledged += recorded
            self.journal.write("".join(f"{name}\n" for name in recorded))
            self.journal.flush()

    def save(self, place: Path) -> None:
        np.savez(
            place / "found.npz",
            latencies=np.array(self.latencies, np.int64),
            kinds=np.array(self.kinds, np.int8),
            statuses=np.array(self.statuses, np.int16),
            ended=np.array(self.ended, np.int64),
        )
        about = {
            "seconds": (time.perf_counter_ns() - self.began) / 1e9,
            "driver_cpu": time.process_time(),
            "sent_again": self.sent_again,
            "acknowledged": self.acknowledged,
            "bodies": self.bodies,
        }
        (place / "found.msgpack").write_bytes(msgspec.msgpack.encode(about))


class Client(asyncio.Protocol):
    """One connection: a request is sent when the answer to the last one is whole."""

    def __init__(self, driver: Driver, start: int) -> None:
        self.driver, self.place = driver, start
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.pending: Request | None = None
        self.buffer, self.whole, self.sent = b"", 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer, self.whole = cast("asyncio.Transport", transport), b"", 0
        if self.pending is None:
            self._go_on()
        else:
            self._send()

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if not self.whole:
            head = self.buffer.find(HEAD_END)
            if head < 0:
                return
            self.whole = head + 4 + _length(self.buffer[:head])
        if len(self.buffer) < self.whole:
            return
        latency, buffer = time.perf_counter_ns() - self.sent, self.buffer
        status = int(buffer[9:12])
        self.buffer, self.whole = b"", 0
        assert self.pending is not None
        if self._is_sent_again and status >= 500:
            asyncio.get_running_loop().call_later(AGAIN_S, self._again)
            return
        self.driver.record(self.pending, status, latency, buffer[buffer.find(HEAD_END) + 4 :])
        self.pending = None
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.done.done():
            return
        if self._is_sent_again:
            self.driver.sent_again += 1
        elif self.pending is not None:
            self.driver.record(self.pending, 0, time.perf_counter_ns() - self.sent, b"")
            self.pending = None
        loop = asyncio.get_running_loop()
        loop.call_later(AGAIN_S, lambda: loop.create_task(self.connect()))

    @property
    def _is_sent_again(self) -> bool:
        """Whether the request that has no answer yet goes on until it has one."""
        return self.driver.plan.retry and self.pending is not None and self.pending.kind == WRITE

    async def connect(self) -> None:
        """Until there is a server, or nothing left to send."""
        plan = self.driver.plan
        while not self.done.done():
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, plan.host, plan.port)
                return
            except OSError:
                if self.driver.is_over and self.pending is None:
                    self.done.set_result(None)
                await asyncio.sleep(AGAIN_S)

    def _again(self) -> None:
        self.driver.sent_again += 1
        if self.transport is not None:
            self._send()

    def _go_on(self) -> None:
        self.pending = self.driver.next(self.place)
        self.place += 1
        if self.pending is not None:
            self._send()
            return
        self.done.set_result(None)
        if self.transport is not None:
            self.transport.close()

    def _send(self) -> None:
        assert self.transport is not None
        assert self.pending is not None
        self.sent = time.perf_counter_ns()
        self.transport.write(self.pending.text)


def _length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(LENGTH)
    if at < 0:
        return 0
    end = lower.find(b"\r\n", at)
    return int(lower[at + len(LENGTH) : end if end > 0 else None])


async def _run(plan: Plan, place: Path) -> None:
    driver = Driver(plan)

    def stop() -> None:
        driver.stops = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    starts = driver.draw.integers(max(1, len(plan.reads)), size=plan.clients).tolist()
    clients = [Client(driver, start) for start in starts]
    (place / "begun").touch()
    driver.began = time.perf_counter_ns()
    if plan.seconds:
        driver.until = driver.began + int(plan.seconds * 1e9)
    await asyncio.gather(*(client.connect() for client in clients))
    await asyncio.gather(*(client.done for client in clients))
    driver.save(place)
    told = Counter(driver.statuses)
    if told.keys() - {200} and not plan.retry:
        print(f"Statuses: {dict(told)}", file=sys.stderr)


def main() -> None:
    place, core = Path(sys.argv[1]), int(sys.argv[2])
    os.sched_setaffinity(0, {core})
    plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
    try:
        import uvloop

        uvloop.run(_run(plan, place))
    except ImportError:
        asyncio.run(_run(plan, place))


if __name__ == "__main__":
    main()
