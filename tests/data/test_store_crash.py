"""The promise of the store, tested as a crash tests it: the writer is killed at random moments, again and again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import endcap
from endcap.core.errors import ServiceError
from endcap.core.types import Event, EventType
from endcap.data.sqlite_store import SEGMENT_MIN_ROWS, SqliteStore

KILLS = 8

# Two threads record live events, one loads tables; each line on stdout is an acknowledgement, written after it.
WRITER = f"""
import os, sys, threading
from pathlib import Path
import polars as pl
from endcap.core.types import Event, EventType
from endcap.data.sqlite_store import SqliteStore

store, run = SqliteStore.open(Path(sys.argv[1]), create=True), sys.argv[2]

def tell(text):
    os.write(1, (text + "\\n").encode())

def live(thread):
    for number in range(10**9):
        ids = [f"live-{{run}}-{{thread}}-{{number}}-{{k}}" for k in range(3)]
        store.append([Event(event_type=EventType.VIEW, user_id="u", ts_ms=1, item_id="i", event_id=i) for i in ids])
        for event_id in ids:
            tell(event_id)

def bulk():
    count = {SEGMENT_MIN_ROWS}
    for number in range(10**9):
        name = f"bulk-{{run}}-{{number}}"
        store.append_table(pl.DataFrame({{
            "event_id": [f"{{name}}-{{k}}" for k in range(count)], "event_type": ["purchase"] * count,
            "user_id": ["u"] * count, "ts_ms": list(range(count)), "item_id": ["i"] * count}}))
        tell(name)

tell("ready")
threads = [threading.Thread(target=live, args=(k,)) for k in range(2)] + [threading.Thread(target=bulk)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def run_until_killed(folder: Path, run: int, loads: int, delay_s: float) -> list[str]:
    """Starts a writer, kills it `delay_s` after it acknowledged `loads` tables; returns all it acknowledged."""
    environment = {**os.environ, "PYTHONPATH": str(Path(endcap.__file__).parents[1]), "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(folder), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        told: list[bytes] = []
        while sum(line.startswith(b"bulk") for line in told) < loads:
            told.append(process.stdout.readline())
            assert told[-1], "the writer ended by itself"
        # The pipe holds some thousand lines: more than the writer tells in the time that is left to it.
        look_on_from_here(folder)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().splitlines(keepends=True)
    assert process.returncode == -signal.SIGKILL
    # A line without its end was not told.
    return [line.decode().strip() for line in told if line.endswith(b"\n")]


def look_on_from_here(folder: Path) -> None:
    """While another process writes, this one may read but not write."""
    with pytest.raises(ServiceError, match="Another process"):
        SqliteStore.open(folder)
    with SqliteStore.open_reader(folder) as reader:
        seqs = reader.events().select("seq").collect()["seq"].to_list()
        assert seqs == list(range(1, len(seqs) + 1))


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    draw, live, bulk = random.Random(7), [], []
    for run in range(KILLS):
        told = run_until_killed(tmp_path, run, draw.randrange(3), draw.uniform(0, 0.1))
        live += [name for name in told if name.startswith("live")]
        bulk += [name for name in told if name.startswith("bulk")]
        with SqliteStore.open(tmp_path) as store:
            frame = store.events().collect()
            segments = store.counts().segments
            assert store.verify() == []
        ids = frame["event_id"].to_list()
        assert frame["seq"].to_list() == list(range(1, len(ids) + 1))
        assert len(set(ids)) == len(ids)
        assert set(live) <= set(ids)
        loads: dict[str, int] = {}
        for event_id in ids:
            if event_id.startswith("bulk"):
                name = event_id.rsplit("-", 1)[0]
                loads[name] = loads.get(name, 0) + 1
        assert set(bulk) <= set(loads)
        assert set(loads.values()) <= {SEGMENT_MIN_ROWS}  # a table is there whole, or not at all
        folder = tmp_path / "segments"
        assert len(loads) == segments
        assert len(list(folder.iterdir()) if folder.exists() else []) == 2 * segments
    assert live
    assert bulk
    resend_and_check(tmp_path, live, bulk)


def resend_and_check(folder: Path, live: list[str], bulk: list[str]) -> None:
    """A client that saw no answer sends again: what was recorded is a duplicate, whichever way it came."""
    again = [f"{name}-0" for name in bulk] + live[:5]
    with SqliteStore.open(folder) as store:
        events = [
            Event(event_type=EventType.VIEW, user_id="u", ts_ms=1, item_id="i", event_id=event_id) for event_id in again
        ]
        answer = store.append(events)
    assert answer.duplicates == again
    assert answer.accepted == []
