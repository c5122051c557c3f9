"""The process that sends a `load.Plan`: python -m benchmarks.driver FOLDER CORE

It speaks HTTP/1.1 over kept connections by itself: a client library would take more time than the server. The folder
holds `plan.json`; `begun` is made there before the first request, and `found.npz` and `found.msgpack` after the last.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from benchmarks.load import READ, WRITE, Plan, post

AGAIN_S = 0.05
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"


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
        journal = Path(plan.journal) if plan.journal else None
        self.journal = journal and journal.open("a", encoding="utf-8")
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
