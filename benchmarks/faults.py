"""A server that is killed again and again while others write, read and publish, and what is left of it each time.

lost        acknowledged events that the log does not hold
duplicated  events that it holds more than once
torn        releases of which a file is missing or changed, pointers to none, servers that did not come back
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.load import Found, Plan, driving
from benchmarks.requests import EVENTS, PATH, events, reads
from benchmarks.served import Served, start_endcap
from endcap import Shop
from endcap.core.artifacts import MANIFEST, ReleaseStore
from endcap.core.errors import EndcapError

WAIT_S = (0.2, 1.2)  # from a server that is ready to its end, drawn evenly


@dataclass(slots=True)
class Damage:
    """What was found wrong over all kills. kills: how many there were. recorded, acknowledged: events at the end.
    stale: purchases that a later slate did not know of."""

    kills: int = 0
    lost: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    torn: list[str] = field(default_factory=list)
    acknowledged: int = 0
    recorded: int = 0
    sent_again: int = 0
    reads_failed: int = 0
    stale: int = 0
    ready_s: list[float] = field(default_factory=list)

    def figures(self, end: str = "") -> dict[str, float]:
        return {
            f"kills{end}": self.kills,
            f"lost{end}": len(self.lost),
            f"duplicated{end}": len(self.duplicated),
            f"torn{end}": len(self.torn),
            f"acknowledged{end}": self.acknowledged,
            f"recorded{end}": self.recorded,
            f"sent_again{end}": self.sent_again,
            f"reads_failed{end}": self.reads_failed,
            f"ready_again_s{end}": float(np.median(self.ready_s)) if self.ready_s else 0.0,
        }


def kill_servers(
    workspace: Path, users: list[str], items: list[str], *, times: int, port: int, seed: int = 0, **env: str
) -> Damage:
    """kill -9 of the server at random moments. Two releases at least must be there, to be published in turn."""
    damage, draw = Damage(), np.random.default_rng(seed)
    server = start_endcap(workspace, port, **env)
    try:
        with _loaded(workspace, users, items, port, damage) as journal:
            for _ in range(times):
                with _publishing(workspace):
                    time.sleep(float(draw.uniform(*WAIT_S)))
                    server.kill()
                damage.kills += 1
                inspect_releases(workspace, damage)
                server = _again(workspace, port, damage, env)
                inspect_log(workspace, journal, damage)
            time.sleep(WAIT_S[1])
    finally:
        server.kill()
    inspect_log(workspace, workspace.parent / "acknowledged.txt", damage)
    return damage


def kill_beside(
    workspace: Path,
    users: list[str],
    items: list[str],
    restart: Callable[[], None],
    *,
    times: int,
    port: int,
    seed: int = 0,
    **env: str,
) -> Damage:
    """The server stays, and what stands beside it, a database or a cache, is killed and started again by `restart`."""
    damage, draw, bought = Damage(), np.random.default_rng(seed), dict[str, str]()
    server = start_endcap(workspace, port, **env)
    try:
        with _loaded(workspace, users, items, port, damage) as journal:
            for _ in range(times):
                time.sleep(float(draw.uniform(*WAIT_S)))
                began = time.monotonic()
                restart()
                damage.kills += 1
                while server.ask("/health/ready")[0] != 200:
                    if time.monotonic() - began > 60:
                        damage.torn.append("The server was not ready a minute after its neighbour was back.")
                        break
                    time.sleep(0.02)
                damage.ready_s.append(time.monotonic() - began)
                inspect_log(workspace, journal, damage)
                bought[users[damage.kills]] = _buy(server, users[damage.kills])
                damage.stale += sum(item in _shelf(server, user) for user, item in bought.items())
            time.sleep(WAIT_S[1])
    finally:
        server.stop()
    inspect_log(workspace, workspace.parent / "acknowledged.txt", damage)
    return damage


def inspect_log(workspace: Path, journal: Path, damage: Damage) -> None:
    """What the journal holds by now must be in the log, once."""
    acknowledged = set(journal.read_text("utf-8").split("\n")[:-1])
    with Shop.open(workspace, read_only=True) as shop:
        recorded = shop.store.events().select("event_id").collect()["event_id"]
    damage.lost |= acknowledged - set(recorded.to_list())
    damage.duplicated |= set(recorded.filter(recorded.is_duplicated()).to_list())
    damage.acknowledged, damage.recorded = len(acknowledged), recorded.str.starts_with("fault-").sum()


def inspect_releases(workspace: Path, damage: Damage) -> None:
    """Every folder that looks like a release must be whole, and the pointer must name one of them."""
    releases = ReleaseStore(workspace / "releases")
    for place in sorted(releases.root.glob("[!.]*/")):
        try:
            if not (place / MANIFEST).is_file():
                damage.torn.append(f"{place.name} has no manifest.")
                continue
            releases.open(place.name)
        except EndcapError as error:
            damage.torn.append(str(error))
    try:
        current = releases.current()
    except EndcapError as error:
        damage.torn.append(str(error))
        return
    if current is None or not (releases.root / current).is_dir():
        damage.torn.append(f"The pointer names {current}, which is not there.")


def _buy(server: Served, user: str) -> str:
    """The first item of the shopper's shelf of what is new to them."""
    item = _shelf(server, user)[0]
    server.ask(EVENTS, json.dumps({"event_type": "purchase", "user_id": user, "item_id": item}))
    return item


def _shelf(server: Served, user: str) -> list[str]:
    slate = json.loads(server.ask(f"{PATH}?user_id={user}&n=10&placement=discovery")[1])
    return [item["item_id"] for item in slate["items"]]


def _again(workspace: Path, port: int, damage: Damage, env: dict[str, str]) -> Served:
    try:
        server = start_endcap(workspace, port, **env)
    except RuntimeError as error:
        damage.torn.append(str(error))
        return start_endcap(workspace, port, **env)
    damage.ready_s.append(server.ready_s)
    return server


@contextmanager
def _loaded(workspace: Path, users: list[str], items: list[str], port: int, damage: Damage) -> Iterator[Path]:
    """Eight clients write and read; what was not acknowledged is sent again under the same id. Yields the journal."""
    journal = workspace.parent / "acknowledged.txt"
    journal.write_text("")
    plan = Plan(
        port=port,
        clients=8,
        reads=reads(users, items, 500),
        writes=0.6,
        write=EVENTS,
        events=events(users, items, 500),
        names=f"fault-{os.getpid()}-{time.time_ns()}",
        journal=str(journal),
        retry=True,
    )
    with driving(plan) as running:
        yield journal
    _tell(running.found, damage)


def _tell(found: Found, damage: Damage) -> None:
    damage.sent_again = found.sent_again
    reads_only = found.kinds == 0
    damage.reads_failed = int((found.statuses[reads_only] != 200).sum())


@contextmanager
def _publishing(workspace: Path) -> Iterator[None]:
    """Releases are committed and published until the block is left; then that process is killed too."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.faults", str(workspace / "releases")]) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGKILL)


def publish_for_ever(releases: ReleaseStore) -> None:
    """The first two releases in turn, and copies of the first, committed anew."""
    first, second = (manifest.release_id for manifest in releases.list()[:2])
    turn = 0
    while True:
        turn += 1
        chosen = (first, second)[turn % 2]
        if turn % 5 == 0:
            with releases.stage() as folder:
                source, manifest = releases.open(first)
                for name in manifest.files:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes((source / name).read_bytes())
                chosen = releases.commit(folder, manifest, now_ms=int(1000 * time.time())).release_id
        releases.publish(chosen)
        time.sleep(0.05)


if __name__ == "__main__":
    publish_for_ever(ReleaseStore(Path(sys.argv[1])))
