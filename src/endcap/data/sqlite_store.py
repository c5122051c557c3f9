"""The store of one workspace on SQLite and Parquet.

    store.sqlite   live events, catalogue, users, and the list of segments
    segments/      bulk loads of events (see `segments`)
    quarantine/    refused rows, one Parquet file a batch
    writer.lock    held while a writer is open

One writer, any number of readers, in any process. What is promised: `data.store`.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import apsw
import msgspec
import numpy as np
import polars as pl

from endcap.core.artifacts import flush
from endcap.core.errors import CallerError, NotFoundError, ServiceError
from endcap.core.types import Event, Item
from endcap.data import catalogue, database, log, refused
from endcap.data.commits import GroupCommit
from endcap.data.repeats import is_first
from endcap.data.segments import Hashes, Mask, Segment, SegmentFiles, any_at, hash_ids, in_order, list_segments
from endcap.data.store import Appended, AppendedTable, Counts, Store

# Below this many rows a table goes the way of live events: a file each would make every lookup slower for ever.
SEGMENT_MIN_ROWS = 2_000


Job = Callable[[apsw.Connection], Any]
# What waits to be written: events to append, or anything else.
Work = log.Rows | Job


class SqliteStore(Store):
    """Use `SqliteStore.open` to write (one at a time) or `SqliteStore.open_reader`; close it, or use it in a `with`."""

    def __init__(self, folder: Path, lock: apsw.Connection | None, connection: apsw.Connection | None) -> None:
        self.folder = folder
        self._lock = lock
        self._files = SegmentFiles(folder)
        self._bulk = threading.Lock()
        self._local = threading.local()
        self._readers: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._readers_lock = threading.Lock()
        self._closed = False
        self._writer_connection = connection
        self._commits: GroupCommit[Work] | None = None
        self._segments_written = 0
        self._position: tuple[int, tuple[int, int]] | None = None
        if connection is None:
            return
        self._files.sweep(connection)
        self._files.reload(connection)
        self._segments_written = max((int(segment.name) for segment in list_segments(connection)), default=0)
        self._commits = GroupCommit(partial(self._transact, connection), str(folder))

    @classmethod
    def open(cls, folder: Path, *, create: bool = False) -> SqliteStore:
        """Open for writing. With `create` a missing store is made; without, it is a NotFoundError.

        ServiceError where another writer has it open, or it is damaged, or of another schema version.
        """
        if not create and not (folder / database.FILE).is_file():
            raise NotFoundError(
                "There is no event store here.",
                where=str(folder),
                next_step="Check the folder, or create the workspace.",
            )
        if create:
            database.make_folder(folder)
        with database.translated(folder):
            lock = database.lock_for_writing(folder)
            connection: apsw.Connection | None = None
            try:
                connection = database.connect_writer(folder)
                store = cls(folder, lock, connection)
                flush(folder)
            except BaseException:
                if connection is not None:
                    connection.close()
                lock.close()
                raise
        return store

    @classmethod
    def open_reader(cls, folder: Path) -> SqliteStore:
        """Open for reading, also while another process writes. Every method that writes raises CallerError."""
        if database.is_older(folder):
            cls.open(folder).close()
        store = cls(folder, None, None)
        with store._reading() as connection:
            store._files.reload(connection)
        return store

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._commits is not None:
            self._commits.close()
        with self._readers_lock:
            for connection in self._readers:
                # One that another thread is using right now is closed when that thread lets go of it.
                with suppress(apsw.Error):
                    connection.close()
        if self._writer_connection is not None:
            self._writer_connection.close()
        if self._lock is not None:
            self._lock.close()

    @property
    def where(self) -> str:
        return str(self.folder.resolve())

    @property
    def commits(self) -> GroupCommit[Any] | None:
        return self._commits

    def append(self, events: Sequence[Event]) -> Appended:
        rows = log.event_rows(events)
        commits = self._writing()
        fresh, last_seq = commits.run(rows)
        accepted = [row[0] for row, is_fresh in zip(rows, fresh, strict=True) if is_fresh]
        duplicates = [row[0] for row, is_fresh in zip(rows, fresh, strict=True) if not is_fresh]
        return Appended(accepted, duplicates, last_seq)

    def append_table(self, frame: pl.DataFrame) -> AppendedTable:
        table = log.checked_table(frame)
        commits = self._writing()
        with self._bulk:
            if table.height < SEGMENT_MIN_ROWS:
                fresh, last_seq = commits.run(table.rows())
                mask = np.array(fresh, np.bool_)
            else:
                mask, last_seq = self._append_segment(table, commits)
        duplicates = frame.filter(pl.Series(~mask, dtype=pl.Boolean))
        return AppendedTable(frame.height - duplicates.height, duplicates.height, duplicates, last_seq)

    def events(self, since_seq: int = 0) -> pl.LazyFrame:
        with self._snapshot() as connection:
            segments = [segment for segment in list_segments(connection) if segment.last_seq > since_seq]
            live = log.read_live(connection, since_seq)
        return in_order(live, [(segment, self._files.scan(segment)) for segment in segments], since_seq)

    def events_after(self, seq: int) -> list[tuple[int, Event]]:
        with self._snapshot() as connection:
            if not any(segment.last_seq > seq for segment in list_segments(connection)):
                return log.read_live_events(connection, seq)
        return log.events_of(self.events(seq).collect())

    def events_of(self, user_ids: Sequence[str], since_seq: int = 0) -> list[tuple[int, Event]]:
        wanted = list(dict.fromkeys(user_ids))
        with self._snapshot() as connection:
            segments = [segment for segment in list_segments(connection) if segment.last_seq > since_seq]
            live = log.read_live_of(connection, wanted, since_seq)
        if not segments:
            return log.events_of(live)
        bulk = [(part, self._files.scan(part).filter(pl.col("user_id").is_in(wanted))) for part in segments]
        return log.events_of(in_order(live, bulk, since_seq).collect())

    def last_seq(self) -> int:
        with self._reading() as connection:
            return database.last_seq(connection)

    def position(self) -> tuple[int, int]:
        """Nobody but the writer changes it, so the writer asks SQLite again only after a transaction of its own."""
        commits = self._commits
        if commits is None or self._closed:
            return self.last_seq(), self.items_version()
        done, known = commits.done, self._position
        if known is not None and known[0] == done:
            return known[1]
        found = self.last_seq(), self.items_version()
        self._position = done, found
        return found

    def counts(self) -> Counts:
        with self._snapshot() as connection:
            live, items, users = (
                connection.execute(f"SELECT count(*) FROM {table}").get  # noqa: S608
                for table in ("events", "items", "users")
            )
            segments = list_segments(connection)
        bulk = sum(segment.rows for segment in segments)
        quarantined: int = self.quarantined().select(pl.len()).collect().item()
        return Counts(live + bulk, live, len(segments), items, users, quarantined)

    def fingerprint(self) -> str:
        with self._snapshot() as connection:
            parts = [
                [segment.sha256 for segment in list_segments(connection)],
                list(connection.execute("SELECT seq, event_id FROM events ORDER BY seq DESC LIMIT 1")),
                [database.get_meta(connection, f"{table}_digest", "") for table in ("items", "users")],
            ]
        return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()

    def begin_items_at(self, version: int) -> None:
        self._writing().run(lambda connection: database.set_meta(connection, "items_version", str(version)))

    def put_items(self, items: pl.DataFrame | Sequence[Item]) -> int:
        rows = catalogue.item_rows(items)
        self._writing().run(lambda connection: catalogue.put_items(connection, rows))
        return len(rows.whole)

    def patch_items(self, rows: Sequence[Mapping[str, Any]]) -> int:
        groups = catalogue.patch_rows(rows)
        self._writing().run(lambda connection: catalogue.put_items(connection, *groups))
        return len(rows)

    def items(self) -> pl.DataFrame:
        with self._reading() as connection:
            return catalogue.read_items(connection)

    def item(self, item_id: str) -> Item | None:
        with self._reading() as connection:
            return catalogue.read_item(connection, item_id)

    def titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        with self._reading() as connection:
            return catalogue.read_titles(connection, item_ids)

    def availability(self) -> list[tuple[str, str]]:
        with self._reading() as connection:
            rows = connection.execute("SELECT item_id, availability FROM items")
            return [(str(item_id), str(availability)) for item_id, availability in rows]

    def items_version(self) -> int:
        with self._reading() as connection:
            return catalogue.items_version(connection)

    def items_changed(self, since_version: int) -> tuple[int, list[Item]]:
        with self._snapshot() as connection:
            return catalogue.items_version(connection), catalogue.read_changed(connection, since_version)

    def put_users(self, users: pl.DataFrame) -> int:
        rows = catalogue.user_rows(users)
        self._writing().run(lambda connection: catalogue.put_users(connection, rows))
        return len(rows.whole)

    def users(self) -> pl.DataFrame:
        with self._reading() as connection:
            return catalogue.read_users(connection)

    def user(self, user_id: str) -> dict[str, str] | None:
        with self._reading() as connection:
            return catalogue.read_user(connection, user_id)

    def quarantine(self, frame: pl.DataFrame) -> int:
        self._writing()
        with self._bulk, database.translated(self.folder):
            return refused.keep(self.folder, frame)

    def quarantined(self) -> pl.LazyFrame:
        return refused.scan(self.folder)

    def quarantine_counts(self) -> dict[str, int]:
        return refused.counts(self.folder)

    def copy_to(self, folder: Path) -> None:
        with self._reading() as source:
            database.copy(source, folder)
        with database.translated(folder), closing(database.connect_reader(folder)) as copied:
            self._files.copy_to(folder, list_segments(copied))
        refused.copy_to(self.folder, folder)

    def verify(self) -> list[str]:
        with self._reading() as connection:
            rows = connection.execute("PRAGMA integrity_check").fetchall()
            problems = [f"{self.folder / database.FILE}: {text}" for (text,) in rows if text != "ok"]
            return problems + self._files.verify(connection)

    def _transact(self, connection: apsw.Connection, works: Sequence[Work]) -> list[Any]:
        """Does what waits in one transaction; events that wait one after the other are inserted together."""
        jobs: list[Job] = []
        sizes: list[list[int] | None] = []
        rows: log.Rows = []
        for work in works:
            if not isinstance(work, list):
                jobs.append(work)
                sizes.append(None)
            elif sizes and (lengths := sizes[-1]) is not None:
                rows.extend(work)
                lengths.append(len(work))
            else:
                rows = list(work)
                jobs.append(partial(log.insert, rows=rows, files=self._files))
                sizes.append([len(work)])
        results = transact(connection, self.folder, self._files.reload, jobs)
        return [part for result, each in zip(results, sizes, strict=True) for part in _parted(result, each)]

    def _append_segment(self, table: pl.DataFrame, commits: GroupCommit[Work]) -> tuple[Mask, int]:
        """Which rows were new, and the log's newest seq. Only one thread at a time may be here."""
        ids = table["event_id"]
        hashes = hash_ids(ids) if self._files.any_committed else None  # nothing to look them up in: see `write`
        with self._snapshot() as connection:
            seen_seq = database.last_seq(connection)
            live = log.read_live_ids(connection)
        mask = is_first(ids).to_numpy(writable=True)
        if hashes is not None:
            mask &= ~self._files.holding(ids, hashes)
        mask &= ~ids.is_in(live.implode()).to_numpy()
        while mask.any():
            self._segments_written += 1
            with database.translated(self.folder):
                of_new = None if hashes is None else hashes[mask]
                segment, ordered = self._files.write(table.filter(mask), of_new, self._segments_written)
            taken, last_seq = commits.run(self._segment_job(segment, ordered, seen_seq))
            if not len(taken):
                return mask, last_seq
            # Someone recorded these live while the file was written; they were first, so the file is made again.
            self._files.discard(segment)
            mask &= ~ids.is_in(taken.implode()).to_numpy()
        return mask, self.last_seq()

    def _segment_job(self, segment: Segment, hashes: Hashes, seen_seq: int) -> log.SegmentJob:
        """Commits the segment, or, where live events after seen_seq hold ids of it, returns those and does not."""

        def commit(connection: apsw.Connection) -> tuple[pl.Series, int]:
            late = log.read_live_ids(connection, seen_seq)
            late = late.gather(np.flatnonzero(any_at(hash_ids(late), hashes)))
            if len(late):
                late = late.filter(pl.Series(self._files.confirmed(segment.name, late), dtype=pl.Boolean))
            if len(late):
                return late, database.last_seq(connection)
            return late, self._files.commit(connection, segment, database.last_seq(connection) + 1).last_seq

        return commit

    def _writing(self) -> GroupCommit[Work]:
        if self._commits is None:
            raise CallerError(
                "The store was opened for reading.", where=str(self.folder), next_step="Open it with SqliteStore.open."
            )
        if self._closed:
            raise self._closed_error()
        return self._commits

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """This thread's read connection, SQLite's errors translated."""
        if self._closed:
            raise self._closed_error()
        with database.translated(self.folder):
            connection: apsw.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = database.connect_reader(self.folder)
                with self._readers_lock:
                    self._readers.add(connection)
            yield connection

    @contextmanager
    def _snapshot(self) -> Iterator[apsw.Connection]:
        """A read connection on which every query sees the same moment."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")

    def _closed_error(self) -> ServiceError:
        return ServiceError("The store is closed.", where=str(self.folder), next_step="Open it again.")


def transact(
    connection: apsw.Connection, folder: Path, after_rollback: Callable[[apsw.Connection], None], jobs: Sequence[Job]
) -> list[Any]:
    """Runs all jobs in one transaction. after_rollback: puts right what the jobs changed in memory if it failed."""
    with database.translated(folder):
        database.check_in_place(connection, folder)
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [job(connection) for job in jobs]
            connection.execute("COMMIT")
        except BaseException:
            try:
                # SQLite has rolled back by itself after some errors, such as a full disk.
                if not connection.getautocommit():
                    connection.execute("ROLLBACK")
            finally:
                after_rollback(connection)
            raise
    return results


def _parted(result: Any, lengths: list[int] | None) -> list[Any]:
    """What each batch of a group is told of the one insert; other work's result is its own."""
    if lengths is None:
        return [result]
    fresh, last_seq = result
    ends = list(accumulate(lengths))
    return [(fresh[end - length : end], last_seq) for length, end in zip(lengths, ends, strict=True)]
