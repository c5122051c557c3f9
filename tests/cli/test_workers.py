"""Several real server processes over one Postgres and one Redis: what one was told, every other knows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.servers import PostgresServer, RedisServer

from endcap.app.runtime import Shop

SOURCE = str(Path(__file__).parents[2] / "src")
ITEM = "dairy-000"


@pytest.fixture
def grown(trained, planted, tmp_path, postgres: PostgresServer, redis_server: RedisServer, schema, monkeypatch) -> Path:
    """The trained shop with its log on Postgres, under the same numbers, and its states on Redis."""
    monkeypatch.setenv("ENDCAP_STORE_URL", f"{postgres.url}?schema={schema}")
    monkeypatch.setenv("ENDCAP_STATE_URL", redis_server.url)
    folder = shutil.copytree(trained, tmp_path / "shop")
    with Shop.open(folder) as shop:
        shop.ingest(planted.dataset)
    return folder


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its base URL, once it takes requests."""
    command = [sys.executable, "-m", "endcap", "serve", "--shop", str(folder), "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if not found:
                process.kill()
                raise AssertionError(line + process.stderr.read())
            yield process, found[0]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def view(place: int) -> dict[str, str]:
    return {"event_type": "view", "session_id": "s-1", "item_id": ITEM, "event_id": f"e-{place}"}


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_what_one_server_was_told_the_other_knows(grown):
    with serving(grown) as (_, one), serving(grown) as (_, other):
        for place in range(10):
            told, asked = (one, other) if place % 2 else (other, one)
            assert httpx.post(f"{told}/v1/events", json=view(place)).json()["accepted"]
            known = httpx.get(f"{asked}/v1/users/session:s-1").json()
            assert known["events"] == place + 1
        login = {"event_type": "login", "session_id": "s-1", "user_id": "ada"}
        assert httpx.post(f"{one}/v1/events", json=login).json()["accepted"]
        assert httpx.get(f"{other}/v1/users/ada").json()["events"] == 10
        assert httpx.post(f"{one}/v1/events", json=view(0)).json()["duplicates"] == ["e-0"]
        of_user, of_session = (
            httpx.get(f"{other}/v1/recommendations", params=asked).json()
            for asked in ({"user_id": "ada"}, {"session_id": "s-1"})
        )
        assert of_user["items"] == of_session["items"]
        assert of_user["degraded"] == []


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers under /proc")
def test_a_killed_worker_loses_nothing_and_is_started_again(grown):
    with serving(grown, "--workers", "2") as (process, url):
        before = workers_of(process)
        assert len(before) == 2
        told = 0
        for _ in range(10):  # each on a connection of its own, which either worker may take
            assert httpx.post(f"{url}/v1/events", json=view(told)).status_code == 200
            told += 1
            assert httpx.get(f"{url}/v1/users/session:s-1").json()["events"] == told
        os.kill(before[0], signal.SIGKILL)
        deadline = time.monotonic() + 120
        while len(after := workers_of(process)) < 2 or before[0] in after:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert httpx.post(f"{url}/v1/events", json=view(told)).status_code == 200
        assert httpx.get(f"{url}/v1/users/session:s-1").json()["events"] == told + 1
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.strip().endswith("Stopped.")
    assert "Traceback" not in err
    with Shop.open(grown) as shop:
        recorded = [event.event_id for _, event in shop.store.events_of(["session:s-1"])]
    assert recorded == [f"e-{place}" for place in range(told + 1)]


def test_sqlite_has_one_writer(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "shop")
    command = [sys.executable, "-m", "endcap", "serve", "--shop", str(folder), "--port", "0", "--workers", "2"]
    refused = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    assert refused.returncode == 2
    assert "SQLite, which has one writer" in refused.stderr
    assert "Traceback" not in refused.stderr
