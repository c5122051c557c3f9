"""What a store on SQLite does when the disk, another process, an older version or the clock is against it."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import apsw
import polars as pl
import pytest
from tests.earlier import make_version_2

from endcap.core.artifacts import Manifest, ReleaseStore
from endcap.core.errors import ServiceError
from endcap.data import database
from endcap.data.sqlite_store import SEGMENT_MIN_ROWS, SqliteStore
from endcap.testing.conformance_store import a_table, an_event

# What schema version 1 made, as it was written then.
FIRST_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, event_type TEXT NOT NULL, user_id TEXT NOT NULL,
    ts_ms INTEGER NOT NULL, item_id TEXT, session_id TEXT, quantity REAL, price REAL, currency TEXT, value REAL,
    query TEXT, placement TEXT, recommendation_id TEXT) STRICT;
CREATE TABLE segments (
    last_seq INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, name TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, ids_bytes INTEGER NOT NULL, ids_sha256 TEXT NOT NULL) STRICT;
CREATE TABLE items (
    position INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, description TEXT NOT NULL,
    price REAL, currency TEXT, categories TEXT NOT NULL, brand TEXT, attributes TEXT NOT NULL, images TEXT NOT NULL,
    audio TEXT NOT NULL, availability TEXT NOT NULL, created_ms INTEGER) STRICT;
CREATE TABLE users (
    position INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE, attributes TEXT NOT NULL) STRICT;
INSERT INTO meta VALUES ('schema_version', '1'), ('items_version', '7'), ('items_digest', 'd'), ('users_version', '2');
INSERT INTO events (seq, event_id, event_type, user_id, ts_ms, item_id) VALUES (1, 'a', 'view', 'u', 5, 'i');
INSERT INTO items VALUES (1, 'i', 'Milk', '', 1.5, NULL, '["Dairy"]', NULL, '{}', '[]', '[]', 'in_stock', NULL);
"""


class TestOlderVersion:
    @pytest.fixture
    def first(self, tmp_path: Path) -> Path:
        connection = apsw.Connection(str(tmp_path / database.FILE))
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(FIRST_SCHEMA)
        connection.close()
        return tmp_path

    def test_a_store_of_the_first_version_is_brought_up_to_date(self, first: Path) -> None:
        with SqliteStore.open(first) as store:
            assert [event.event_id for _, event in store.events_of(["u"])] == ["a"]
            assert store.items_version() == 7
            version, items = store.items_changed(0)
            assert (version, [item.title for item in items]) == (7, ["Milk"])
            assert store.items_changed(6)[1] == items, "what was written before the change counts as new"
            assert store.items_changed(7) == (7, [])
            store.patch_items([{"item_id": "i", "price": 2.0}])
            assert [item.price for item in store.items_changed(7)[1]] == [2.0]
            assert store.append([an_event("a"), an_event("b")]).accepted == ["b"]
            assert store.verify() == []
        SqliteStore.open(first).close()

    def test_a_reader_brings_it_up_to_date_too(self, first: Path) -> None:
        with SqliteStore.open_reader(first) as reader:
            assert reader.items_changed(0)[0] == 7
            assert reader.last_seq() == 1

    def test_a_new_store_and_one_brought_up_to_date_have_the_same_tables(self, first: Path, tmp_path: Path) -> None:
        SqliteStore.open(first).close()
        SqliteStore.open(tmp_path / "new", create=True).close()
        assert _columns(first) == _columns(tmp_path / "new")

    def test_hashes_of_the_second_version_are_made_anew(self, tmp_path: Path) -> None:
        ids = [f"x{number}" for number in range(SEGMENT_MIN_ROWS)]
        with SqliteStore.open(tmp_path, create=True) as store:
            store.append_table(a_table(ids))
            store.append([an_event("live")])
            before = store.events().collect()
        make_version_2(tmp_path)
        with SqliteStore.open(tmp_path) as store:
            assert store.verify() == []
            assert store.events().collect().equals(before)
            assert store.append([an_event("x5"), an_event("new")]).accepted == ["new"]
            again = [f"y{number}" for number in range(SEGMENT_MIN_ROWS)]
            assert store.append_table(a_table([*again, "x7", "live"])).duplicates["event_id"].to_list() == [
                "x7",
                "live",
            ]
        assert not list((tmp_path / "segments").glob("*.ids.npy")), "the old hashes are swept"

    def test_a_change_of_version_that_breaks_off_is_made_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with SqliteStore.open(tmp_path, create=True) as store:
            for name in "ab":
                store.append_table(a_table([f"{name}{number}" for number in range(SEGMENT_MIN_ROWS)]))
        make_version_2(tmp_path)
        lost = tmp_path / "segments" / "000002.parquet"
        lost.rename(tmp_path / "kept")
        with pytest.raises(ServiceError, match=r"000002\.parquet"):
            SqliteStore.open(tmp_path)
        frame = pl.read_parquet(tmp_path / "kept")
        frame.with_columns(event_id=pl.col("event_id").str.replace("b5$", "b-5")).write_parquet(lost)
        with pytest.raises(ServiceError, match="not what was committed"):
            SqliteStore.open(tmp_path)
        assert len(list((tmp_path / "segments").glob("*.ids.npy"))) == 2, "nothing is given up for what is not sound"
        (tmp_path / "kept").rename(lost)
        with SqliteStore.open(tmp_path) as store:
            assert store.verify() == []
            assert store.append([an_event("a1"), an_event("b1"), an_event("c1")]).accepted == ["c1"]


class TestDisk:
    @pytest.fixture
    def store(self, tmp_path: Path):
        with SqliteStore.open(tmp_path, create=True) as opened:
            yield opened

    @pytest.fixture
    def small_files(self):
        """No file may grow beyond what is set: what a full disk looks like to whoever writes one."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)

    def test_a_bulk_load_that_the_disk_has_no_room_for_leaves_nothing(self, store: SqliteStore, small_files) -> None:
        store.append([an_event("before")])
        small_files(4_096)
        with pytest.raises(ServiceError, match=r"cannot be read or written|disk is full|SQLite failed"):
            store.append_table(a_table([f"x{number}" for number in range(4 * SEGMENT_MIN_ROWS)]))
        small_files(resource.RLIM_INFINITY)
        assert [event.event_id for _, event in store.events_after(0)] == ["before"]
        assert store.append_table(a_table([f"x{n}" for n in range(SEGMENT_MIN_ROWS)])).n_accepted == SEGMENT_MIN_ROWS
        assert store.verify() == []

    def test_live_events_that_the_disk_has_no_room_for_are_not_acknowledged(
        self, store: SqliteStore, small_files
    ) -> None:
        store.append([an_event("before")])
        small_files((store.folder / f"{database.FILE}-wal").stat().st_size + 8_192)
        with pytest.raises(ServiceError):
            store.append([an_event(f"lost-{number}") for number in range(2_000)])
        assert store.last_seq() == 1, "reading goes on"
        small_files(resource.RLIM_INFINITY)
        assert store.append([an_event("lost-1"), an_event("before")]).accepted == ["lost-1"]
        assert store.verify() == []


def test_a_database_that_another_process_holds_is_told_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    with SqliteStore.open(tmp_path, create=True) as store:
        store.append([an_event("a")])
        other = apsw.Connection(str(tmp_path / database.FILE))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ServiceError, match=r"busy.*Try again"):
            store.append([an_event("b")])
        assert store.last_seq() == 1, "reading goes on"
        other.execute("ROLLBACK")
        other.close()
        assert store.append([an_event("b")]).accepted == ["b"]


def test_the_log_goes_by_seq_when_the_clock_jumps_back(tmp_path: Path) -> None:
    with SqliteStore.open(tmp_path / "store", create=True) as store:
        store.append([an_event("later", ts_ms=9_000_000_000_000)])
        store.append([an_event("earlier", ts_ms=1)])
        assert [(seq, event.event_id) for seq, event in store.events_after(0)] == [(1, "later"), (2, "earlier")]
        assert [event.event_id for _, event in store.events_after(1)] == ["earlier"]
    releases = ReleaseStore(tmp_path / "releases")
    made = []
    for now_ms in (1_800_000_000_000, 1_700_000_000_000, 1_700_000_000_000):
        with releases.stage() as folder:
            (folder / "model.npy").write_bytes(b"weights")
            manifest = Manifest(code_version="1", seed=0, config={}, data={}, metrics={})
            made.append(releases.commit(folder, manifest, now_ms=now_ms).release_id)
        releases.publish(made[-1])
        assert releases.current() == made[-1]
    assert len(set(made)) == 3
    assert releases.rollback() == made[1]


def test_segments_of_a_copy_are_those_of_its_moment(tmp_path: Path) -> None:
    with SqliteStore.open(tmp_path / "store", create=True) as store:
        store.append_table(a_table([f"x{number}" for number in range(SEGMENT_MIN_ROWS)]))
        store.append([an_event("live")])
        store.copy_to(tmp_path / "copy")
        store.append([an_event("later")])
        assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["quarantine", "segments", "store.sqlite"]
        with SqliteStore.open(tmp_path / "copy") as copy:
            assert copy.events().collect().equals(store.events().filter(pl.col("event_id") != "later").collect())
            assert copy.append([an_event("live"), an_event("x5"), an_event("new")]).accepted == ["new"]


def _columns(folder: Path) -> list[tuple]:
    connection = apsw.Connection(str(folder / database.FILE))
    try:
        tables = ("meta", "events", "segments", "items", "users")
        found = [
            (table, row[1], row[2]) for table in tables for row in connection.execute(f"PRAGMA table_info({table})")
        ]
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name")
        ]
    finally:
        connection.close()
    return [*sorted(found), *names]
