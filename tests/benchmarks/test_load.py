"""The driver against a server that answers as told: what it counts, what it sends again, what it keeps."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from benchmarks.load import READ, WRITE, Plan, drive, driving, get, percentiles

READS = [get("/a"), get("/b")]
EVENT = '{"event_id": "{id}", "event_type": "view"}'


@contextmanager
def answering(answer):
    """A server in a thread. answer(line, body) -> status and body, or None to break the connection. Yields its port."""

    async def serve(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15] == b"Content-Length:"), 0)
                said = answer(head.split(b"\r\n")[0].decode(), await reader.readexactly(length))
                if said is None:
                    break
                status, body = said
                half = len(body) // 2  # in two parts, as a busy server's answers come
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body[:half])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(body[half:])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    loop, ports = asyncio.new_event_loop(), []
    begun, stop = threading.Event(), asyncio.Event()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        begun.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    begun.wait()
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()


def test_every_request_is_asked_and_counted_once():
    seen = []

    def answer(line, body):
        seen.append(line)
        return 200, json.dumps({"asked": line}).encode()

    with answering(answer) as port:
        found = drive(Plan(port=port, clients=3, requests=50, reads=READS, keep=20))
    assert len(seen) == len(found.latencies) == 50
    assert {line.split()[1] for line in seen} == {"/a", "/b"}
    assert found.failed == 0
    assert (found.of(READ) > 0).all()
    assert len(found.bodies) == 20
    for place, body in found.bodies:
        assert json.loads(body)["asked"].split()[1] == READS[place].split()[1]


def test_what_is_no_success_is_a_failure():
    with answering(lambda line, body: (503, b"{}")) as port:
        found = drive(Plan(port=port, requests=4, reads=READS))
    assert found.statuses.tolist() == [503] * 4
    assert found.failed == 4


def test_a_share_of_the_requests_are_events_with_ids_of_their_own():
    names = []

    def answer(line, body):
        if line.startswith("POST"):
            names.append(json.loads(body)["event_id"])
        return 200, b"{}"

    with answering(answer) as port:
        plan = Plan(port=port, clients=2, requests=300, reads=READS, writes=0.3, write="/e", events=[EVENT], names="n")
        found = drive(plan)
    assert len(set(names)) == len(names) == (found.kinds == WRITE).sum()
    assert 50 < len(names) < 130


def test_what_was_not_acknowledged_is_sent_again_unchanged_until_it_is(tmp_path):
    tries = {}

    def answer(line, body):
        name = json.loads(body)["event_id"]
        tries[name] = tries.get(name, 0) + 1
        if tries[name] < 3:  # first the connection breaks, then the server is not ready
            return None if tries[name] == 1 else (503, b"{}")
        return 200, json.dumps({"accepted": [], "duplicates": [name]}).encode()

    journal = tmp_path / "journal"
    plan = {"clients": 2, "writes": 1.0, "write": "/e", "events": [EVENT], "retry": True, "journal": str(journal)}
    with answering(answer) as port, driving(Plan(port=port, **plan)) as running:
        while sum(times == 3 for times in tries.values()) < 4:
            time.sleep(0.01)
    acknowledged = running.found.acknowledged
    assert set(acknowledged) == set(tries)
    assert set(tries.values()) == {3}
    assert journal.read_text().split() == acknowledged
    assert running.found.sent_again == 2 * len(tries)


def test_percentiles_are_milliseconds():
    found = percentiles(np.arange(1, 101) * 1_000_000)
    assert found["p50_ms"] == pytest.approx(50.5)
    assert found["max_ms"] == 100
