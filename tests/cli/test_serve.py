"""A real server in a real process: it answers, learns of an event, and stops when told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its base URL, once it takes requests."""
    command = [sys.executable, "-m", "endcap", "serve", "--shop", str(folder), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found, line + process.stderr.read()
            yield process, found[0]
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_event_changes_the_next_answer_and_a_signal_ends_it(folder, planted, stop):
    user, item = next(iter(planted.answers.items()))
    asked = {"user_id": user, "n": 1, "placement": "discovery"}
    with serving(folder) as (process, url), httpx.Client(base_url=url, timeout=30) as client:
        before = client.get("/v1/recommendations", params=asked).json()["items"][0]
        assert before["item_id"] == item
        event = {"event_type": "purchase", "user_id": user, "item_id": item, "event_id": "e-1"}
        assert client.post("/v1/events", json=event).json()["accepted"] == ["e-1"]
        after = client.get("/v1/recommendations", params=asked).json()["items"][0]
        assert after["item_id"] != item
        assert before["title"] in after["reason"]
        process.send_signal(stop)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.strip().endswith("Stopped.")
    assert "Traceback" not in err
    if stop == signal.SIGINT:
        return  # what was recorded is looked for once
    with serving(folder) as (process, url):
        assert httpx.post(f"{url}/v1/events", json=event).json()["duplicates"] == ["e-1"]
        again = httpx.get(f"{url}/v1/recommendations", params=asked).json()["items"][0]
        assert again["item_id"] == after["item_id"]


def test_second_server_is_refused(folder):
    with serving(folder):
        second = subprocess.run(
            [sys.executable, "-m", "endcap", "serve", "--shop", str(folder), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=ENVIRONMENT,
        )
    assert second.returncode == 1
    assert "writing to this workspace" in second.stderr
    assert "Traceback" not in second.stderr


def test_address_for_others_is_refused(folder):
    refused = subprocess.run(
        [sys.executable, "-m", "endcap", "serve", "--shop", str(folder), "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
    )
    assert refused.returncode == 2
    assert "API keys" in refused.stderr


SERVED = """
import sys
from fastapi.testclient import TestClient
import endcap.cli.main
from endcap.app.runtime import Shop
from endcap.web.server import create_app
with Shop.open(sys.argv[1]) as shop, TestClient(create_app(shop)) as client:
    assert client.get("/v1/recommendations").json()["items"]
    event = {"event_type": "view", "user_id": "u", "item_id": "dairy-000"}
    assert client.post("/v1/events", json=event).json()["accepted"]
    assert client.get("/v1/users/u").json()["events"] == 1
    assert client.get("/v1/items/dairy-000/similar").json()["items"]
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""


def test_serving_needs_neither_torch_nor_transformers(folder):
    answer = subprocess.run(
        [sys.executable, "-c", SERVED, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
    )
    assert answer.stdout.strip() == "[]", answer.stderr
