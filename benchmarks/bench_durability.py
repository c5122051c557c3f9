"""What is kept when things break, and how fast it can be written.

`make bench NAME=durability` needs no data; DATASET=quick is a short run of it. Figures:

    events_per_s_batched      four clients, 500 events a request; events_per_s_single: 32 clients, one a request. Each
                              is on disk before its answer
    rows_per_s_ingested       `endcap ingest` of two million rows of clean Parquet, the start of the process included
    kills, lost, duplicated, torn      30 times kill -9 of the server under writes, reads and publishes (`faults`)
    ..._redis, ..._postgres   the same where Redis, or Postgres, is killed beside it
    swaps, swap_failed, swap_mixed     two releases published in turn under eight clients: answers that failed, and
                              answers that are not, item for item, what the release they name answers
    swap_p50_ms, swap_p99_ms  meanwhile; `steady_...` without swaps
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from tests.servers import PostgresServer, RedisServer, missing_postgres, missing_redis

from benchmarks.faults import kill_beside, kill_servers
from benchmarks.load import READ, Found, Plan, drive, driving, percentiles, post
from benchmarks.requests import EVENTS, PATH, events
from benchmarks.run import tell
from benchmarks.scale_data import Size, made
from benchmarks.served import LOCAL, ROOT, Served, endcap_served
from endcap import Shop
from endcap.core.artifacts import ReleaseStore
from endcap.web.server import free_port

SHOP = Size(items=2_000, users=1_500, events=18_000, qualifiers=1)
# Two releases that have no source in common, so that they hardly ever answer the same.
FIRST, SECOND = ("transitions", "transitions_last", "second_hop", "trending"), ("knn", "knn_last", "ease", "popular")
SETTINGS = """[train]
threads = 1
optional = []
sources = {sources}
moments = 1
"""
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Length:
    seconds: float = 10.0
    rows: int = 2_000_000
    kills: int = 30
    kills_beside: int = 5
    swap_every_s: float = 0.5


QUICK = Length(seconds=3.0, rows=100_000, kills=3, kills_beside=2)


@dataclass(frozen=True, slots=True, eq=False)
class Small:
    """A shop of two releases. workspace: may be written to."""

    workspace: Path
    users: list[str]
    items: list[str]


def run(dataset: str = "") -> Figures:
    length = QUICK if dataset == "quick" else Length()
    figures: Figures = {}
    for part in (_rates, _ingested, _killed, _killed_redis, _killed_postgres, _swapped):
        with TemporaryDirectory() as folder:
            found = part(Path(folder), length)
        print(json.dumps(found, indent=1), flush=True)
        figures |= found
    return figures


def small_shop(folder: Path) -> Small:
    log, catalogue = made(SHOP)
    workspace = Shop.init(folder / "shop", SETTINGS.format(sources=json.dumps(FIRST)))
    with Shop.open(workspace) as shop:
        shop.ingest(log, items=catalogue)
        first = shop.train(evaluate=False, progress=tell).manifest.release_id
    (workspace / "endcap.toml").write_text(SETTINGS.format(sources=json.dumps(SECOND)))
    with Shop.open(workspace) as shop:
        shop.train(evaluate=False, progress=tell)
        shop.publish(first)
    return Small(workspace, log["user_id"].unique(maintain_order=True).to_list(), catalogue["item_id"].to_list())


def _rates(folder: Path, length: Length) -> Figures:
    shop = small_shop(folder)
    figures: Figures = {}
    written = events(shop.users, shop.items, 5000)
    with endcap_served(shop.workspace) as server:
        for name, clients, batch in (("batched", 4, 500), ("single", 32, 1)):
            plan = Plan(
                port=server.port, clients=clients, seconds=length.seconds, writes=1.0, write=EVENTS, batch=batch
            )
            found = drive(msgspec.structs.replace(plan, events=written, names=name))
            figures[f"events_per_s_{name}"] = batch * found.rate
            figures[f"failed_{name}"] = found.failed
            figures |= {f"write_{key}_{name}": value for key, value in percentiles(found.latencies).items()}
    return figures


def _ingested(folder: Path, length: Length) -> Figures:
    log, catalogue = made(Size(items=100_000, users=length.rows // 12, events=length.rows, qualifiers=3))
    log.write_parquet(folder / "events.parquet")
    with Shop.open(Shop.init(folder / "shop")) as shop:
        shop.ingest(items=catalogue)
    command = [sys.executable, "-m", "endcap", "ingest", str(folder / "events.parquet"), "--shop", str(folder / "shop")]
    began = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    with Shop.open(folder / "shop", read_only=True) as shop:
        recorded = shop.store.last_seq()
    return {"rows_ingested": recorded, "rows_per_s_ingested": recorded / seconds}


def _killed(folder: Path, length: Length) -> Figures:
    shop = small_shop(folder)
    damage = kill_servers(shop.workspace, shop.users, shop.items, times=length.kills, port=free_port(LOCAL, 0))
    for problem in damage.torn:
        print(problem)
    return damage.figures()


def _killed_redis(folder: Path, length: Length) -> Figures:
    return _killed_beside(RedisServer, missing_redis(), "ENDCAP_STATE_URL", folder, length)


def _killed_postgres(folder: Path, length: Length) -> Figures:
    return _killed_beside(PostgresServer, missing_postgres(), "ENDCAP_STORE_URL", folder, length)


def _killed_beside(
    kind: type[RedisServer | PostgresServer], missing: str, variable: str, folder: Path, length: Length
) -> Figures:
    """Nothing, with a word why, where there is no such server. variable: tells Endcap of it."""
    if missing:
        print(f"Left out: {missing}.")
        return {}
    with kind() as server, told(variable, server.url):
        shop, port = small_shop(folder), free_port(LOCAL, 0)

        def restart() -> None:
            server.kill()
            server.start()

        damage = kill_beside(shop.workspace, shop.users, shop.items, restart, times=length.kills_beside, port=port)
    for problem in damage.torn:
        print(problem)
    end = "_redis" if kind is RedisServer else "_postgres"
    return damage.figures(end) | {f"stale{end}": damage.stale}


@contextmanager
def told(variable: str, value: str) -> Iterator[None]:
    """The variable is set for this process, and those that it starts, until the block is left."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before


def _swapped(folder: Path, length: Length) -> Figures:
    shop = small_shop(folder)
    releases = ReleaseStore(shop.workspace / "releases")
    names = [manifest.release_id for manifest in releases.list()]
    now_ms = int(1000 * time.time())
    asked = [post(PATH, json.dumps({"user_id": user, "n": 10, "now_ms": now_ms})) for user in shop.users[:300]]
    with endcap_served(shop.workspace) as server:
        expected = {name: _answers(server, releases, name, asked) for name in names}
        differ = sum(one != other for one, other in zip(*expected.values(), strict=True)) / len(asked)
        plan = Plan(port=server.port, clients=8, reads=asked, seconds=length.seconds)
        steady = drive(plan)
        swaps = 0
        with driving(msgspec.structs.replace(plan, seconds=2 * length.seconds, keep=10**6)) as running:
            while running.process.poll() is None:
                swaps += 1
                releases.publish(names[swaps % len(names)])
                time.sleep(length.swap_every_s)
        found = running.found
    mixed, seen = _mixed(found, expected)
    return {
        "swaps": swaps,
        "swaps_seen": seen,
        "swap_answers": len(found.bodies),
        "swap_failed": found.failed,
        "swap_mixed": mixed,
        "swap_told_apart_pct": 100 * differ,
        **{f"swap_{name}": value for name, value in percentiles(found.of(READ)).items()},
        **{f"steady_{name}": value for name, value in percentiles(steady.of(READ)).items()},
    }


def _answers(server: Served, releases: ReleaseStore, name: str, asked: list[str]) -> list[list[str]]:
    """The items of each slate, by a release that nobody takes away meanwhile."""
    releases.publish(name)
    server.takes_up(name)
    found = drive(Plan(port=server.port, reads=asked, requests=len(asked), keep=len(asked)))
    by_place = {place: msgspec.json.decode(body) for place, body in found.bodies}
    assert {slate["release"] for slate in by_place.values()} == {name}
    return [[item["item_id"] for item in by_place[place]["items"]] for place in range(len(asked))]


def _mixed(found: Found, expected: dict[str, list[list[str]]]) -> tuple[int, int]:
    """How many answers are not what the release they name answers; how often the release changed."""
    wrong, changes, last = 0, 0, ""
    for place, body in found.bodies:
        slate = msgspec.json.decode(body)
        wrong += [item["item_id"] for item in slate["items"]] != expected[slate["release"]][place]
        changes += slate["release"] != last
        last = slate["release"]
    return wrong, changes - 1
