"""Answers over HTTP from catalogues of 12 thousand, 100 thousand and a million items, beside a plain ALS service.

`make bench NAME=serving` measures all sizes, `DATASET=100k` one of them (`results/serving-100k.json`), `DATASET=drift`
memory over many answers alone. The shops are made the first time (`benchmarks.scale_shop`) and kept in ENDCAP_SCALE, or
the folder for temporary files. The server has one core and the driver another: ENDCAP_CORES=0,1. With PEERS=als
the peer is measured beside each size, in the same way; it is installed into an environment of its own. Figures, each
ending in the size:

    ready_s                       from the start of the process to the first 200 of /health/ready
    p50_ms, p95_ms, p99_ms        one client; `_8` and `_32` with more (p50_ms_100k_8)
    rps_1, rps_8, rps_32          answers a second; `rps_core_8`: a second of the server's processor time
    rss_mb, pss_file_mb, pss_anonymous_mb     after that load
    stage_ms_<stage>              mean of each stage, where the server counts them
    mixed_*                       eight clients, one request in ten an event
    effect_ms, effect_answers     from the answer to a purchase to the first slate without it; how many slates it took
    als_*, plain_*, ratio_als     the peer's, and ours by the same requests, a few seconds of each in turn, so that a
                                  machine that slows down does so for both; our median over the peer's
    wrk_rps_8                     the same load from wrk, where it is installed
    recall@100                    of the release's indexes, against exact search
    memory_drift_pct_100k         growth of resident memory over 200,000 answers, after the first 20,000
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.load import READ, WRITE, Found, Plan, drive, driving, percentiles
from benchmarks.peers.als_beside import als_served
from benchmarks.recall import recall_at_100
from benchmarks.requests import EVENTS, PATH, events, plain_reads, reads
from benchmarks.scale_shop import ScaleShop, scale_shop
from benchmarks.served import Served, endcap_served
from benchmarks.wrk import wrk_rate
from endcap.core.errors import CallerError

ALL = ("12k", "100k", "1m")
CLIENTS = (1, 8, 32)
ROUNDS = 5  # in which ours and the peer take turns
RECALL_AT, DRIFT, DRIFT_AT = ("1m", "mini"), "drift", "100k"
REQUESTS = 20_000  # distinct ones
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Length:
    """How long is measured. warm: requests before anything counts. seconds: of each load. drift: answers in a row."""

    warm: int = 1000
    seconds: float = 20.0
    probes: int = 200
    drift: int = 200_000
    drift_warm: int = 20_000


QUICK = Length(warm=100, seconds=3.0, probes=20, drift=3000, drift_warm=600)


def run(data: Path | None, dataset: str = "", peers: str = "") -> Figures:
    if peers not in ("", "als", "all"):
        raise CallerError(f"No peer is called {peers!r}.", where="PEERS", next_step="The peer is als.")
    root = Path(os.environ["ENDCAP_SCALE"]) if os.environ.get("ENDCAP_SCALE") else None
    figures: Figures = {}
    if dataset in ("", DRIFT):
        figures[f"memory_drift_pct_{DRIFT_AT}"] = drifted(scale_shop(DRIFT_AT, root, data), Length())
    for name in () if dataset == DRIFT else (dataset,) if dataset else ALL:
        shop = scale_shop(name, root, data)
        length = QUICK if name == "mini" else Length()
        found = measured(shop, length, has_peer=bool(peers))
        figures |= {key.replace("@SIZE", f"_{name}"): value for key, value in found.items()}
        print(json.dumps({key: round(value, 2) for key, value in figures.items()}, indent=1), flush=True)
    return figures


def measured(shop: ScaleShop, length: Length, *, has_peer: bool) -> Figures:
    """All figures of a size, `@SIZE` where the size goes."""
    with copied(shop) as workspace, endcap_served(workspace) as server:
        figures = _served(shop, server, length)
        if has_peer:
            figures |= _beside(shop, server, length)
    if length is QUICK:
        figures["memory_drift_pct@SIZE"] = drifted(shop, length)
    if shop.name in RECALL_AT:
        figures |= {f"{name}@SIZE": value for name, value in recall_at_100(shop.workspace).items()}
    return figures


@contextmanager
def copied(shop: ScaleShop) -> Iterator[Path]:
    """A workspace that may be written to, with the shop's own releases, which are not."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "shop"
        shutil.copytree(shop.workspace, place, ignore=shutil.ignore_patterns("releases", "cache", "checkpoints"))
        (place / "releases").symlink_to(shop.workspace / "releases")
        yield place


def _served(shop: ScaleShop, server: Served, length: Length) -> Figures:
    users, items = people(shop), things(shop)
    asked = reads(users, items, REQUESTS)
    figures: Figures = {"ready_s@SIZE": server.ready_s}
    drive(Plan(port=server.port, requests=length.warm, clients=2, reads=asked))
    for clients in CLIENTS:
        before = server.stages()
        figures |= _loaded(server, Plan(port=server.port, clients=clients, seconds=length.seconds, reads=asked))
        if clients == 1:
            figures |= _stages(before, server.stages())
    memory = server.memory()
    figures |= {
        "rss_mb@SIZE": memory.rss,
        "pss_mb@SIZE": memory.pss,
        "pss_file_mb@SIZE": memory.file,
        "pss_anonymous_mb@SIZE": memory.anonymous,
    }
    rate = wrk_rate(server.port, asked, clients=8, seconds=length.seconds / 2)
    figures |= {} if rate is None else {"wrk_rps_8@SIZE": rate}
    plan = Plan(port=server.port, clients=8, seconds=length.seconds, reads=asked, writes=0.1, write=EVENTS)
    written = events(users, items, REQUESTS)
    figures |= _mixed(drive(msgspec.structs.replace(plan, events=written, names=f"mixed-{time.time_ns()}")))
    return figures | _effect(server, users, length.probes)


def people(shop: ScaleShop) -> list[str]:
    return shop.events()["user_id"].unique(maintain_order=True).to_list()


def things(shop: ScaleShop) -> list[str]:
    return shop.items()["item_id"].to_list()


def _end(clients: int) -> str:
    return "" if clients == 1 else f"_{clients}"


def _loaded(server: Served, plan: Plan) -> Figures:
    """Latencies, answers a second, and a second of the server's processor time; bodies are looked at for stages that
    gave way."""
    before = server.cpu_s()
    found = drive(msgspec.structs.replace(plan, keep=500))
    cpu_s, end = server.cpu_s() - before, _end(plan.clients)
    answered = int((found.statuses > 0).sum())
    gave_way = [bool(json.loads(body).get("degraded")) for _, body in found.bodies]
    return {
        **{f"{name}@SIZE{end}": value for name, value in percentiles(found.of(READ)).items()},
        f"rps@SIZE_{plan.clients}": found.rate,
        f"rps_core@SIZE_{plan.clients}": answered / max(cpu_s, 1e-9),
        f"failed@SIZE_{plan.clients}": found.failed,
        f"degraded_pct@SIZE_{plan.clients}": 100 * float(np.mean(gave_way or [0.0])),
    }


def _in_turn(servers: dict[str, Served], plan: Plan) -> Figures:
    """The same load on each, round after round. plan: of all rounds of one together."""
    end, spent_s = _end(plan.clients), dict.fromkeys(servers, 0.0)
    found: dict[str, list[Found]] = {prefix: [] for prefix in servers}
    for _ in range(ROUNDS):
        for prefix, server in servers.items():
            before = server.cpu_s()
            one = msgspec.structs.replace(plan, port=server.port, seconds=plan.seconds / ROUNDS)
            found[prefix].append(drive(one))
            spent_s[prefix] += server.cpu_s() - before
    figures: Figures = {}
    for prefix, parts in found.items():
        took = percentiles(np.concatenate([part.of(READ) for part in parts]))
        answered = sum(int((part.statuses > 0).sum()) for part in parts)
        figures |= {f"{prefix}{name}@SIZE{end}": value for name, value in took.items()}
        figures[f"{prefix}rps@SIZE_{plan.clients}"] = answered / sum(part.seconds for part in parts)
        figures[f"{prefix}rps_core@SIZE_{plan.clients}"] = answered / max(spent_s[prefix], 1e-9)
        figures[f"{prefix}failed@SIZE_{plan.clients}"] = sum(part.failed for part in parts)
    return figures


def _stages(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> Figures:
    figures: Figures = {}
    for stage, (seconds, times) in after.items():
        seconds_before, times_before = before.get(stage, (0.0, 0.0))
        if times > times_before:
            figures[f"stage_ms_{stage}@SIZE"] = 1000 * (seconds - seconds_before) / (times - times_before)
    return figures


def _mixed(found: Found) -> Figures:
    return {
        **{f"mixed_{name}@SIZE": value for name, value in percentiles(found.of(READ)).items()},
        **{f"mixed_write_{name}@SIZE": value for name, value in percentiles(found.of(WRITE)).items()},
        "mixed_rps@SIZE": found.rate,
        "mixed_failed@SIZE": found.failed,
    }


def _effect(server: Served, users: list[str], probes: int) -> Figures:
    """Some shoppers buy the first item of their discovery shelf: how soon it is gone."""
    taken, answers = [], []
    draw = np.random.default_rng(5)
    for number, user in enumerate(users[int(place)] for place in draw.choice(len(users), probes, replace=False)):
        shelf = f"{PATH}?user_id={user}&n=10&placement=discovery"
        first = json.loads(server.ask(shelf)[1])["items"][0]["item_id"]
        act = {"event_id": f"effect-{number}-{time.time_ns()}", "event_type": "purchase"}
        status, said = server.ask(EVENTS, json.dumps({**act, "user_id": user, "item_id": first}))
        assert status == 200, said
        began, count = time.perf_counter(), 0
        while True:
            count += 1
            shown = [item["item_id"] for item in json.loads(server.ask(shelf)[1])["items"]]
            if first not in shown or count == 50:
                break
        taken.append(1000 * (time.perf_counter() - began))
        answers.append(count)
    return {
        "effect_ms@SIZE": float(np.median(taken)),
        "effect_ms_max@SIZE": float(max(taken)),
        "effect_answers@SIZE": float(max(answers)),
    }


def drifted(shop: ScaleShop, length: Length) -> float:
    """Percent: the mean of the last tenth of samples of resident memory over that of the first tenth after warming."""
    asked = reads(people(shop), things(shop), REQUESTS, seed=1)
    with copied(shop) as workspace, endcap_served(workspace) as server:
        drive(Plan(port=server.port, clients=8, requests=length.drift_warm, reads=asked))
        plan, samples = Plan(port=server.port, clients=8, requests=length.drift, reads=asked), []
        with driving(plan) as running:
            while running.process.poll() is None:
                samples.append(server.rss_mb())
                time.sleep(0.25)
        assert not running.found.failed
    part = max(1, len(samples) // 10)
    begun, ended = float(np.mean(samples[:part])), float(np.mean(samples[-part:]))
    return 100 * (ended / begun - 1)


def _beside(shop: ScaleShop, ours: Served, length: Length) -> Figures:
    """The peer, on the same data, and ours in turn with it, by the same requests."""
    asked = plain_reads(people(shop), REQUESTS)
    with als_served(shop) as peer:
        figures: Figures = {"als_ready_s@SIZE": peer.ready_s}
        for server in (ours, peer):
            drive(Plan(port=server.port, requests=length.warm, clients=2, reads=asked))
        for clients in CLIENTS:
            plan = Plan(port=0, clients=clients, seconds=length.seconds / 2, reads=asked)
            figures |= _in_turn({"plain_": ours, "als_": peer}, plan)
            end = _end(clients)
            figures[f"ratio_als@SIZE{end}"] = figures[f"plain_p50_ms@SIZE{end}"] / figures[f"als_p50_ms@SIZE{end}"]
        figures["als_rss_mb@SIZE"] = peer.memory().rss
        written = events(people(shop), things(shop), REQUESTS)
        plan = Plan(port=peer.port, clients=8, seconds=length.seconds / 2, reads=asked, writes=0.1, write=EVENTS)
        mixed = _mixed(drive(msgspec.structs.replace(plan, events=written, names=f"mixed-{time.time_ns()}")))
        return figures | {f"als_{name}": value for name, value in mixed.items()}
