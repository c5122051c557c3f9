"""The whole path on The Complete Journey: ingest, train, measure, publish, answer.

Figures: `ndcg@10_all`, `_discovery` and `_cart` with intervals, the same of every baseline
(`ndcg@10_all__personal_frequency`), the gain over the best baseline with its paired interval (`..._gain_lo`), seconds
by stage, start-up and answer times of a server of its own.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

from benchmarks.run import tell
from endcap import Shop
from endcap.cli.demo import DATASET, SETTINGS

ANSWERS = 300


def run(data: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        workspace = Shop.init(Path(folder) / "shop", SETTINGS)
        with Shop.open(workspace) as shop:
            shop.ingest_dataset(DATASET)
            ingested = time.monotonic()
            trained = shop.train(progress=tell)
            users = shop.store.users()["user_id"].to_list()
        assert trained.comparison is not None
        total_s = time.monotonic() - started
        stages = {f"seconds_{_name(stage)}": seconds for stage, seconds in trained.seconds.items()}
        return {
            **trained.comparison.figures(),
            "seconds_total": total_s,
            "seconds_ingest": ingested - started,
            **stages,
            **_serving(workspace, users),
        }


def _serving(workspace: Path, users: list[str]) -> dict[str, float]:
    """Time until ready, and of one client's answers, from a process started as `endcap serve` starts."""
    started = time.monotonic()
    command = [sys.executable, "-m", "endcap", "serve", "--shop", str(workspace), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        urllib.request.urlopen(f"{url}/health/ready").read()
        ready_s = time.monotonic() - started
        taken = []
        client = http.client.HTTPConnection(url.removeprefix("http://"))  # one connection, kept
        for place in range(ANSWERS):
            asked = time.monotonic()
            client.request("GET", f"/v1/recommendations?user_id={users[place % len(users)]}&n=10")
            answer = client.getresponse().read()
            taken.append(1000 * (time.monotonic() - asked))
            assert len(json.loads(answer)["items"]) == 10
        server.terminate()
    p50, p99 = np.percentile(taken[20:], [50, 99])
    return {"seconds_ready": ready_s, "answer_ms_p50": float(p50), "answer_ms_p99": float(p99)}


def _name(stage: str) -> str:
    return "_".join(stage.replace("'", "").split())
