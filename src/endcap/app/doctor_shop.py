"""What is wrong inside a workspace: its files, who writes to it, its clock, its release, what was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import polars as pl

from endcap.app.findings import Finding, ok, problem, warning
from endcap.app.publish import read_release
from endcap.core.errors import ServiceError
from endcap.data import database

if TYPE_CHECKING:
    from endcap.app.runtime import Shop

DAY_MS = 86_400_000
AHEAD_MS = 60_000  # by which clocks of a shop's machines may differ
OLD_DAYS = 30
NEW_ITEMS, NEW_EVENTS, REFUSED = 0.05, 0.25, 0.05
RESTORE = "Stop what writes to it, and restore the workspace from a backup."


def integrity(shop: Shop, deep: bool) -> Iterator[Finding]:
    """deep: every byte of the store; otherwise the pages of the database and the sizes of files."""
    path = shop.folder / "store" / database.FILE
    damage = [f"{path}: {text}" for text in _pages(path)] if path.is_file() else []
    if deep:
        damage += shop.store.verify()
    if damage:
        yield problem("store", f"The store is damaged: {'; '.join(damage[:3])}.", RESTORE)
    else:
        counts = shop.store.counts()
        how = "Every byte of the store is" if deep else "The store is"
        yield ok("store", f"{how} sound: {counts.events:,} events, {counts.items:,} items, {counts.users:,} users.")


def releases(shop: Shop) -> Iterator[Finding]:
    """Every byte of them."""
    found = shop.releases.list()
    for manifest in found:
        shop.releases.open(manifest.release_id)
    yield ok("releases", f"Every byte of the {len(found)} releases is as it was written.")


def writer(shop: Shop) -> Iterator[Finding]:
    place = shop.folder / "store"
    if not (place / database.LOCK).is_file():
        return
    try:
        with closing(database.lock_for_writing(place)):
            pass
    except ServiceError:
        pid = _holder(place / database.LOCK)
        who = f"process {pid} ({_name(pid)})" if pid else "another process"
        yield ok("writer", f"The workspace is being written to by {who}; a second server or ingest would be refused.")
        return
    yield ok("writer", "Nothing is writing to the workspace; a server or an ingest can start.")


def clock(shop: Shop) -> Iterator[Finding]:
    now_ms = shop.clock()
    later = pl.col("ts_ms") > now_ms + AHEAD_MS
    ahead, newest_ms = shop.store.events().select(ahead=later.sum(), newest=pl.col("ts_ms").max()).collect().row(0)
    manifests = shop.releases.list()
    made_ms = max((manifest.created_ms for manifest in manifests), default=0)
    set_clock = "Set the clock of this machine, best by NTP: timedatectl set-ntp true"
    if made_ms > now_ms + AHEAD_MS:
        yield problem(
            "clock", f"The clock says {_moment(now_ms)}, and a release was made at {_moment(made_ms)}.", set_clock
        )
    elif ahead:
        yield warning(
            "clock",
            f"{ahead:,} events lie in the future, the last of them at {_moment(newest_ms)}; now is {_moment(now_ms)}.",
            f"See which clock is wrong, this machine's or that of what sends events. {set_clock}",
        )
    else:
        yield ok("clock", f"The clock says {_moment(now_ms)}, and no event is ahead of it.")


def release(shop: Shop) -> Iterator[Finding]:
    current = shop.releases.current()
    train = f"endcap train --shop {shop.folder}"
    if current is None:
        yield problem("release", "No release is published, so that nothing can be recommended.", train)
        return
    loaded = read_release(shop.releases, current, shop.config.slate)
    age_days = (shop.clock() - loaded.manifest.created_ms) / DAY_MS
    known = len(loaded.fitted.table)
    said = f"Release {current} can be loaded; it is {max(0.0, age_days):.0f} days old and knows {known:,} items."
    refit = f"Bring it up to date: endcap refit --shop {shop.folder}"
    yield warning("release", said, refit) if age_days > OLD_DAYS else ok("release", said)
    ids = shop.store.items()["item_id"]
    fresh = len(ids) - len(loaded.fitted.table.ids.positions(ids.to_list()))
    said = f"{fresh:,} of the catalogue's {len(ids):,} items are unknown to the release."
    yield warning("catalogue", said, refit) if fresh > NEW_ITEMS * len(ids) else ok("catalogue", said)
    last = shop.store.last_seq()
    said = f"{last - loaded.seq:,} of {last:,} events came after the release."
    yield warning("events", said, refit) if last - loaded.seq > NEW_EVENTS * last else ok("events", said)


def quarantine(shop: Shop) -> Iterator[Finding]:
    counts = shop.store.counts()
    share = counts.quarantined / max(1, counts.quarantined + counts.events + counts.items + counts.users)
    said = f"{counts.quarantined:,} rows were refused, {share:.1%} of all that came"
    if share <= REFUSED:
        yield ok("quarantine", f"{said}.")
        return
    rule = next(iter(shop.store.quarantine_counts()), "")
    yield warning(
        "quarantine",
        f"{said}; most by the rule {rule}.",
        f"See why in {shop.folder / 'store' / 'quarantine'}, mend the source, and ingest it again.",
    )


def _pages(path: Path) -> list[str]:
    """What SQLite finds wrong with a file; empty where it is sound."""
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.set_busy_timeout(database.BUSY_TIMEOUT_MS)
            connection.execute("PRAGMA query_only=ON")
            return [str(text) for (text,) in connection.execute("PRAGMA quick_check(5)") if text != "ok"]
    except (apsw.CorruptError, apsw.NotADBError) as error:
        return [str(error)]


def _holder(path: Path) -> int | None:
    """The process that has locked a file, where the system says (Linux)."""
    inode = path.stat().st_ino
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        parts = line.replace("->", " ").split()
        if len(parts) >= 6 and parts[5].rpartition(":")[2] == str(inode) and int(parts[4]) > 0:
            return int(parts[4])
    return None


def _name(pid: int) -> str:
    """What a process is called; its arguments may hold secrets and are not repeated."""
    try:
        return Path("/proc", str(pid), "comm").read_text().strip()
    except OSError:
        return "gone by now"


def _moment(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


CHECKS: dict[str, Callable[[Shop], Iterator[Finding]]] = {
    "writer": writer,
    "clock": clock,
    "release": release,
    "quarantine": quarantine,
}
