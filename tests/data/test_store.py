"""The event log: recorded once, in order, visible whole, readable by others, and clear about what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np
import polars as pl
import pytest

from endcap.core import tables
from endcap.core.errors import CallerError, DataError, NotFoundError, ServiceError
from endcap.core.types import Event, EventType
from endcap.data import log, segments
from endcap.data import sqlite_store as store_module
from endcap.data.sqlite_store import SEGMENT_MIN_ROWS, SqliteStore
from endcap.data.store import Appended

BULK = SEGMENT_MIN_ROWS


def event(event_id: str = "", **values: object) -> Event:
    return Event(
        **{"event_type": EventType.VIEW, "user_id": "u", "ts_ms": 1, "item_id": "i", "event_id": event_id, **values}
    )


def table(ids: list[str]) -> pl.DataFrame:
    count = len(ids)
    return pl.DataFrame(
        {
            "event_id": ids,
            "event_type": ["purchase"] * count,
            "user_id": [f"u{number % 7}" for number in range(count)],
            "ts_ms": list(range(count)),
            "item_id": [f"i{number % 11}" for number in range(count)],
            "price": [0.5] * count,
            "line": list(range(1, count + 1)),
        }
    )


def bulk_ids(prefix: str) -> list[str]:
    return [f"{prefix}{number}" for number in range(BULK)]


def recorded(store: SqliteStore) -> list[str]:
    return store.events().collect()["event_id"].to_list()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore.open(tmp_path, create=True) as opened:
        yield opened


class TestAppend:
    def test_an_event_comes_back_as_it_was_sent(self, store: SqliteStore) -> None:
        full = event(
            "e1",
            event_type=EventType.RATING,
            session_id="s",
            quantity=2.0,
            price=1.5,
            currency="EUR",
            value=4.5,
            query="käse",
            placement="home",
            recommendation_id="r",
        )
        search = event("e2", event_type=EventType.SEARCH, item_id=None, query="milk")
        assert store.append([full, search]) == Appended(["e1", "e2"], [], 2)
        assert store.events_after(0) == [(1, full), (2, search)]
        assert store.events_after(1) == [(2, search)]
        assert store.events_after(2) == []

    def test_the_table_has_the_canonical_columns_and_seq(self, store: SqliteStore) -> None:
        expected = {**tables.schema(tables.EVENTS), "seq": pl.Int64()}
        assert store.events().collect_schema() == expected
        store.append([event("e1")])
        assert store.events().collect().schema == expected

    def test_recording_is_idempotent_within_and_between_batches(self, store: SqliteStore) -> None:
        assert store.append([event("a"), event("b"), event("a")]) == Appended(["a", "b"], ["a"], 2)
        assert store.append([event("b"), event("c")]) == Appended(["c"], ["b"], 3)
        assert recorded(store) == ["a", "b", "c"]

    def test_events_without_an_id_get_one_each(self, store: SqliteStore) -> None:
        accepted = store.append([event(), event()]).accepted
        assert len(set(accepted)) == 2
        assert all(len(event_id) == 32 for event_id in accepted)
        assert recorded(store) == accepted

    def test_an_empty_batch_changes_nothing(self, store: SqliteStore) -> None:
        assert store.append([]) == Appended([], [], 0)
        assert store.append_table(table([]).clear()).n_accepted == 0
        assert store.last_seq() == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            event("x", user_id=5),
            event("x", price="much"),
            event("x", ts_ms=2**63),
            event("x", event_type="stare"),
            event("x", query="\ud800"),
        ],
        ids=["user", "price", "time", "kind", "surrogate"],
    )
    def test_a_wrong_event_refuses_its_whole_batch(self, store: SqliteStore, wrong: Event) -> None:
        with pytest.raises(CallerError):
            store.append([event("good"), wrong])
        assert store.last_seq() == 0

    def test_a_full_disk_is_told_and_nothing_is_half_recorded(self, store: SqliteStore) -> None:
        store.append([event("before")])
        connection = store._writer_connection
        connection.execute(f"PRAGMA max_page_count={connection.execute('PRAGMA page_count').get}")
        for _ in range(2):
            with pytest.raises(ServiceError, match="disk is full"):
                store.append([event(f"lost-{number}") for number in range(3_000)])
        connection.execute("PRAGMA max_page_count=1000000")
        assert store.append([event("lost-1"), event("before")]) == Appended(["lost-1"], ["before"], 2)
        assert recorded(store) == ["before", "lost-1"]

    def test_many_threads_record_everything_once(self, store: SqliteStore) -> None:
        answers: dict[int, Appended] = {}

        def record(thread: int) -> None:
            # "shared" is sent by all: exactly one of them may be told that it was accepted.
            answers[thread] = store.append([event(f"{thread}-{number}") for number in range(5)] + [event("shared")])

        threads = [threading.Thread(target=record, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sum("shared" in answer.accepted for answer in answers.values()) == 1
        assert sum("shared" in answer.duplicates for answer in answers.values()) == 15
        frame = store.events().collect()
        assert sorted(frame["event_id"]) == sorted([*(f"{t}-{n}" for t in range(16) for n in range(5)), "shared"])
        assert frame["seq"].to_list() == list(range(1, 82))


class TestAppendTable:
    def test_a_bulk_load_becomes_a_segment(self, store: SqliteStore) -> None:
        ids = bulk_ids("b")
        answer = store.append_table(table(ids))
        assert (answer.n_accepted, answer.n_duplicates, answer.last_seq) == (BULK, 0, BULK)
        assert answer.duplicates.height == 0
        frame = store.events().collect()
        assert frame["event_id"].to_list() == ids
        assert frame["seq"].to_list() == list(range(1, BULK + 1))
        assert frame["price"].unique().to_list() == [0.5]
        assert (store.counts().segments, store.counts().live_events) == (1, 0)

    def test_the_same_table_again_is_all_duplicates(self, store: SqliteStore) -> None:
        frame = table(bulk_ids("b"))
        store.append_table(frame)
        answer = store.append_table(frame)
        assert (answer.n_accepted, answer.n_duplicates, answer.last_seq) == (0, BULK, BULK)
        assert answer.duplicates.equals(frame)
        assert store.counts().events == BULK

    def test_duplicates_are_found_in_the_table_the_log_and_the_segments(self, store: SqliteStore) -> None:
        store.append_table(table(bulk_ids("old")))
        store.append([event("live")])
        frame = table([*bulk_ids("new"), "new3", "live", "old5", "fresh"])
        answer = store.append_table(frame)
        assert answer.n_accepted == BULK + 1
        assert answer.duplicates["event_id"].to_list() == ["new3", "live", "old5"]
        assert answer.duplicates["line"].to_list() == [BULK + 1, BULK + 2, BULK + 3]

    def test_a_small_table_goes_into_the_live_log(self, store: SqliteStore) -> None:
        answer = store.append_table(table(["a", "b", "a"]))
        assert (answer.n_accepted, answer.duplicates["line"].to_list()) == (2, [3])
        assert store.counts().segments == 0
        assert [found.price for _, found in store.events_after(0)] == [0.5, 0.5]

    @pytest.mark.parametrize("count", [3, BULK])
    def test_rows_without_an_id_get_one_each(self, store: SqliteStore, count: int) -> None:
        frame = table(["", *(None for _ in range(count - 1))])  # type: ignore[list-item]
        assert store.append_table(frame).n_accepted == count
        assert len(set(recorded(store))) == count

    @pytest.mark.parametrize("name", ["user_id", "event_type", "ts_ms"])
    def test_gaps_in_required_columns_are_refused(self, store: SqliteStore, name: str) -> None:
        with pytest.raises(DataError, match=f"1 of 2 events have no {name}"):
            store.append_table(
                table(["a", "b"]).with_columns(pl.when(pl.col("line") == 1).then(pl.col(name)).alias(name))
            )

    def test_wrong_values_are_refused(self, store: SqliteStore) -> None:
        with pytest.raises(DataError, match="'stare' is not known"):
            store.append_table(table(["a"]).with_columns(event_type=pl.lit("stare")))
        with pytest.raises(DataError, match="wrong type"):
            store.append_table(table(["a"]).with_columns(ts_ms=pl.lit("noon")))
        assert store.last_seq() == 0

    def test_a_live_event_with_a_bulk_loaded_id_is_a_duplicate(self, store: SqliteStore) -> None:
        store.append_table(table(bulk_ids("b")))
        assert store.append([event("b7"), event("new")]) == Appended(["new"], ["b7"], BULK + 1)

    def test_live_and_bulk_are_read_in_order_of_seq(self, store: SqliteStore) -> None:
        store.append([event("first")])
        store.append_table(table(bulk_ids("a")))
        store.append([event("between")])
        store.append_table(table(bulk_ids("b")))
        store.append([event("last")])
        expected = ["first", *bulk_ids("a"), "between", *bulk_ids("b"), "last"]
        frame = store.events().collect()
        assert frame["event_id"].to_list() == expected
        assert frame["seq"].to_list() == list(range(1, len(expected) + 1))
        for since in (0, 1, 5, BULK + 1, BULK + 2, BULK + 100, 2 * BULK + 2, len(expected)):
            assert store.events(since).collect()["event_id"].to_list() == expected[since:]
            assert [seq for seq, _ in store.events_after(since)] == list(range(since + 1, len(expected) + 1))

    def test_colliding_hashes_lose_nothing(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def same_for_all(ids: pl.Series) -> segments.Hashes:
            return np.full(len(ids), 42, np.uint64)

        monkeypatch.setattr(log, "hash_ids", same_for_all)
        monkeypatch.setattr(store_module, "hash_ids", same_for_all)
        monkeypatch.setattr(segments, "hash_ids", same_for_all)
        store.append_table(table(bulk_ids("a")))
        assert store.append_table(table([*bulk_ids("b"), "a1"])).duplicates["event_id"].to_list() == ["a1"]
        assert store.append([event("c"), event("a2"), event("b2")]) == Appended(["c"], ["a2", "b2"], 2 * BULK + 1)

    def test_an_event_recorded_live_while_a_segment_is_written_wins(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = store._files.write
        numbers: list[int] = []

        def write_slowly(
            frame: pl.DataFrame, hashes: segments.Hashes | None, number: int
        ) -> tuple[segments.Segment, segments.Hashes]:
            written = write(frame, hashes, number)
            if not numbers:
                store.append([event("b3", user_id="live"), event("other")])
            numbers.append(number)
            return written

        monkeypatch.setattr(store._files, "write", write_slowly)
        answer = store.append_table(table(bulk_ids("b")))
        assert numbers == [1, 2]
        assert answer.duplicates["event_id"].to_list() == ["b3"]
        frame = store.events().collect()
        assert frame["event_id"].to_list() == ["b3", "other", *(name for name in bulk_ids("b") if name != "b3")]
        assert frame["user_id"][0] == "live"
        assert sorted(path.name for path in (store.folder / "segments").iterdir()) == [
            "000002.parquet",
            "000002.xxh3.npy",
        ]

    def test_hashes_do_not_depend_on_the_machine_or_run(self) -> None:
        # XXH3 with 64 bits and seed 0, as `xxhsum -H3` prints it
        assert [f"{each:016x}" for each in segments.hash_ids(pl.Series(["a", "", "\u00e9\u4e2d"])).tolist()] == [
            "e6c632b61e964e1f",
            "2d06800538d394c2",
            "e65a72039b1700bb",
        ]


class TestOpening:
    def test_everything_is_there_after_reopening(self, tmp_path: Path) -> None:
        with SqliteStore.open(tmp_path / "new" / "shop", create=True) as store:
            store.append([event("a")])
            store.append_table(table(bulk_ids("b")))
            store.quarantine(refused("rule", 1))
            before = (store.events().collect(), store.fingerprint(), store.counts())
        with SqliteStore.open(tmp_path / "new" / "shop", create=True) as store:
            assert store.events().collect().equals(before[0])
            assert (store.fingerprint(), store.counts()) == before[1:]
            assert store.append([event("a"), event("b1"), event("z")]).accepted == ["z"]
            assert store.append_table(table(bulk_ids("c"))).last_seq == 2 * BULK + 2

    def test_a_commit_reaches_the_disk_before_it_returns(self, store: SqliteStore) -> None:
        full = 2
        assert store._writer_connection.execute("PRAGMA synchronous").get == full
        assert store._writer_connection.execute("PRAGMA journal_mode").get == "wal"

    def test_a_missing_store_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no event store"):
            SqliteStore.open(tmp_path / "absent")
        with pytest.raises(NotFoundError, match="no event store"):
            SqliteStore.open_reader(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_second_writer_is_refused_until_the_first_closes(self, tmp_path: Path) -> None:
        with (
            SqliteStore.open(tmp_path, create=True),
            pytest.raises(ServiceError, match=r"writing to this workspace.*`endcap serve` or `endcap ingest`"),
        ):
            SqliteStore.open(tmp_path)
        SqliteStore.open(tmp_path).close()

    def test_a_file_that_is_no_database_is_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "store.sqlite").write_bytes(b"not a database" * 100)
        with pytest.raises(ServiceError, match="damaged"):
            SqliteStore.open(tmp_path)
        with pytest.raises(ServiceError, match="damaged"):
            SqliteStore.open_reader(tmp_path)

    def test_another_database_is_not_a_store(self, tmp_path: Path) -> None:
        other = apsw.Connection(str(tmp_path / "store.sqlite"))
        other.execute("CREATE TABLE recipes (name TEXT)")
        other.close()
        with pytest.raises(ServiceError, match="not an event store"):
            SqliteStore.open(tmp_path)

    def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        SqliteStore.open(tmp_path, create=True).close()
        connection = apsw.Connection(str(tmp_path / "store.sqlite"))
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
        connection.close()
        with pytest.raises(ServiceError, match="schema version 99"):
            SqliteStore.open(tmp_path)

    @pytest.mark.parametrize("name", ["000001.parquet", "000001.xxh3.npy"])
    def test_a_cut_or_missing_segment_is_told_at_opening(self, tmp_path: Path, name: str) -> None:
        with SqliteStore.open(tmp_path, create=True) as store:
            store.append_table(table(bulk_ids("b")))
        path = tmp_path / "segments" / name
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ServiceError, match=name):
            SqliteStore.open(tmp_path)
        path.unlink()
        with pytest.raises(ServiceError, match=name):
            SqliteStore.open_reader(tmp_path)

    def test_files_that_no_segment_owns_are_swept_by_a_writer_only(self, tmp_path: Path) -> None:
        with SqliteStore.open(tmp_path, create=True) as store:
            store.append_table(table(bulk_ids("b")))
        folder = tmp_path / "segments"
        orphans = [folder / name for name in (".000002.parquet.tmp", "000002.parquet", "000002.xxh3.npy")]
        for path in orphans:
            path.write_bytes((folder / "000001.parquet").read_bytes())
        with SqliteStore.open_reader(tmp_path) as reader:
            assert reader.events().collect().height == BULK
        assert all(path.exists() for path in orphans)
        with SqliteStore.open(tmp_path) as store:
            assert recorded(store) == bulk_ids("b")
        assert not any(path.exists() for path in orphans)

    def test_a_lost_database_does_not_cost_the_segments(self, tmp_path: Path) -> None:
        with SqliteStore.open(tmp_path, create=True) as store:
            store.append_table(table(bulk_ids("b")))
        (tmp_path / "store.sqlite").unlink()
        for _ in range(2):
            with pytest.raises(ServiceError, match=r"segments here but no store\.sqlite"):
                SqliteStore.open(tmp_path, create=True)
        assert (tmp_path / "segments" / "000001.parquet").exists()

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        store = SqliteStore.open(tmp_path, create=True)
        store.close()
        store.close()
        for call in (lambda: store.append([event("a")]), store.last_seq, store.items):
            with pytest.raises(ServiceError, match="closed"):
                call()


class TestReaders:
    def test_a_reader_follows_the_writer(self, store: SqliteStore) -> None:
        with SqliteStore.open_reader(store.folder) as reader:
            assert reader.last_seq() == 0
            store.append([event("a")])
            assert [found.event_id for _, found in reader.events_after(0)] == ["a"]
            store.append_table(table(bulk_ids("b")))
            assert len(reader.events_after(1)) == BULK
            assert reader.fingerprint() == store.fingerprint()

    def test_a_reader_cannot_write(self, store: SqliteStore) -> None:
        with SqliteStore.open_reader(store.folder) as reader:
            for write in (
                lambda: reader.append([event("a")]),
                lambda: reader.append_table(table(["a"])),
                lambda: reader.put_items([]),
                lambda: reader.quarantine(refused("rule", 1)),
            ):
                with pytest.raises(CallerError, match="opened for reading"):
                    write()

    def test_each_thread_may_read(self, store: SqliteStore) -> None:
        store.append([event("a")])
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(store.last_seq())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert counts == [1, 1, 1, 1]


class TestFingerprint:
    def test_it_changes_with_events_items_and_users(self, store: SqliteStore) -> None:
        seen = [store.fingerprint()]
        for change in (
            lambda: store.append([event("a")]),
            lambda: store.append_table(table(bulk_ids("b"))),
            lambda: store.put_items(pl.DataFrame({"item_id": ["i"]})),
            lambda: store.put_users(pl.DataFrame({"user_id": ["u"]})),
        ):
            change()
            assert store.fingerprint() == store.fingerprint()
            seen.append(store.fingerprint())
        assert len(set(seen)) == 5

    def test_equal_histories_have_equal_fingerprints(self, tmp_path: Path) -> None:
        prints = set()
        for name in ("one", "two"):
            with SqliteStore.open(tmp_path / name, create=True) as store:
                store.append([event("a")])
                store.append_table(table(bulk_ids("b")))
                store.put_items(pl.DataFrame({"item_id": ["i"]}))
                prints.add(store.fingerprint())
        assert len(prints) == 1


class TestVerify:
    def test_a_sound_store_has_no_problems(self, store: SqliteStore) -> None:
        store.append_table(table(bulk_ids("b")))
        store.append([event("a")])
        assert store.verify() == []

    def test_one_changed_byte_is_found(self, store: SqliteStore) -> None:
        store.append_table(table(bulk_ids("b")))
        path = store.folder / "segments" / "000001.parquet"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert [problem.split(":")[0] for problem in store.verify()] == [str(path)]

    def test_a_damaged_page_is_found(self, tmp_path: Path) -> None:
        with SqliteStore.open(tmp_path, create=True) as store:
            store.append([event(f"event-{number}") for number in range(2_000)])
        path = tmp_path / "store.sqlite"
        content = bytearray(path.read_bytes())
        content[8 * 4096 : 24 * 4096] = bytes(16 * 4096)
        path.write_bytes(content)
        with SqliteStore.open_reader(tmp_path) as reader:
            try:
                problems = reader.verify()
            except ServiceError as error:
                problems = [str(error)]
        assert problems


def refused(rule: str, line: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"table": ["events"], "rule": [rule], "reason": ["r"], "source": ["f"], "line": [line], "raw": ["{}"]}
    )


def test_quarantine_keeps_every_row_and_counts_by_rule(store: SqliteStore) -> None:
    assert store.quarantined().collect().equals(tables.empty(tables.QUARANTINE))
    assert store.quarantine_counts() == {}
    assert store.quarantine(refused("a", 1).clear()) == 0
    for rule, line in (("a", 1), ("b", 2), ("b", 3)):
        assert store.quarantine(refused(rule, line)) == 1
    assert store.quarantined().collect()["line"].to_list() == [1, 2, 3]
    assert store.quarantine_counts() == {"b": 2, "a": 1}
    assert store.counts().quarantined == 3


def test_a_store_whose_file_is_deleted_takes_nothing(store: SqliteStore) -> None:
    store.append([event("kept")])
    (store.folder / "store.sqlite").unlink()
    with pytest.raises(ServiceError, match="deleted or replaced"):
        store.append([event("lost")])
