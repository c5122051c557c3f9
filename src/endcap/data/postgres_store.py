"""The store on Postgres: for several servers, on one machine or many, that write to one shop at the same time."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import psycopg

from endcap.core import tables
from endcap.core.errors import CallerError, ServiceError
from endcap.core.types import Event, Item
from endcap.data import catalogue, database, log, postgres_catalogue, postgres_log
from endcap.data.commits import GroupCommit
from endcap.data.log import Rows
from endcap.data.postgres import Connection, Database, get_meta, rollback, set_meta
from endcap.data.repeats import is_first
from endcap.data.sqlite_store import SqliteStore
from endcap.data.store import Appended, AppendedTable, Counts, Store
from endcap.data.transfer import transfer

# Below this many rows a table is inserted as live events are; above, it is copied in.
COPY_MIN_ROWS = 2_000

COUNTED = ("events", "items", "users", "quarantine")

_Outcome = tuple[list[bool], int]


class PostgresStore(Store):
    """Use `PostgresStore.open`; close it, or use it as a context manager.

    Writes of this process share transactions; processes take turns by a lock that is held until a commit can be seen.
    """

    def __init__(self, opened: Database, *, read_only: bool) -> None:
        self.database = opened
        self._bulk = threading.Lock()
        self._writer: Connection | None = None
        self._closed = False
        self._commits = None if read_only else GroupCommit(self._transact, opened.where)

    @classmethod
    def open(
        cls, url: str, schema: str, *, create: bool = False, read_only: bool = False, connections: int = 8
    ) -> PostgresStore:
        """Open a shop's schema. With `create` a missing one is made; without, it is a NotFoundError.

        ServiceError where the database cannot be reached; CallerError where the URL cannot be read.
        """
        opened = Database(url, schema, connections)
        opened.open(create=create and not read_only)
        return cls(opened, read_only=read_only)

    def __repr__(self) -> str:
        return f"PostgresStore({self.database.where})"

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._commits is not None:
            self._commits.close()
        if self._writer is not None:
            self._writer.close()
        self.database.close()

    @property
    def where(self) -> str:
        return self.database.where

    @property
    def commits(self) -> GroupCommit[Rows] | None:
        return self._commits

    def append(self, events: Sequence[Event]) -> Appended:
        rows = log.event_rows(events)
        postgres_log.refuse_nul(rows)
        fresh, last_seq = self._record(rows)
        accepted = [row[0] for row, is_fresh in zip(rows, fresh, strict=True) if is_fresh]
        duplicates = [row[0] for row, is_fresh in zip(rows, fresh, strict=True) if not is_fresh]
        return Appended(accepted, duplicates, last_seq)

    def append_table(self, frame: pl.DataFrame) -> AppendedTable:
        table = log.checked_table(frame)
        postgres_log.refuse_nul_in_table(table)
        self._writing()
        if table.height < COPY_MIN_ROWS:
            fresh, last_seq = self._record(table.rows())
            mask = np.array(fresh, np.bool_)
        else:
            mask = is_first(table["event_id"]).to_numpy(writable=True)
            places = np.flatnonzero(mask)
            with self._bulk:
                held = postgres_log.copy_in(self.database, table.filter(pl.Series(mask)))
            mask[places[held]] = False
            last_seq = self.last_seq()
        duplicates = frame.filter(pl.Series(~mask, dtype=pl.Boolean))
        return AppendedTable(frame.height - duplicates.height, duplicates.height, duplicates, last_seq)

    def events(self, since_seq: int = 0) -> pl.LazyFrame:
        return postgres_log.scan(self.database, since_seq, self.last_seq())

    def events_after(self, seq: int) -> list[tuple[int, Event]]:
        return self.database.read(lambda connection: postgres_log.read_after(connection, seq))

    def events_of(self, user_ids: Sequence[str], since_seq: int = 0) -> list[tuple[int, Event]]:
        return self.database.read(lambda connection: postgres_log.read_of(connection, user_ids, since_seq))

    def last_seq(self) -> int:
        return self.database.read(postgres_log.last_seq)

    def position(self) -> tuple[int, int]:
        return self.database.read(postgres_log.position)

    def counts(self) -> Counts:
        def read(connection: Connection) -> Counts:
            query = ", ".join(f"(SELECT count(*) FROM {name})" for name in COUNTED)  # noqa: S608
            row = connection.execute(f"SELECT {query}".encode()).fetchone()
            events, items, users, refused = row or (0, 0, 0, 0)
            return Counts(events, events, 0, items, users, refused)

        return self.database.read(read)

    def fingerprint(self) -> str:
        def read(connection: Connection) -> list[Any]:
            newest = connection.execute("SELECT seq, event_id FROM events ORDER BY seq DESC LIMIT 1").fetchall()
            return [newest, *(get_meta(connection, f"{table}_digest", "") for table in ("items", "users"))]

        return hashlib.blake2b(msgspec.json.encode(self.database.read(read)), digest_size=16).hexdigest()

    def begin_items_at(self, version: int) -> None:
        self._put(lambda connection: set_meta(connection, "items_version", str(version)))

    def put_items(self, items: pl.DataFrame | Sequence[Item]) -> int:
        rows = catalogue.item_rows(items)
        self._put(lambda connection: postgres_catalogue.put_items(connection, rows))
        return len(rows.whole)

    def patch_items(self, rows: Sequence[Mapping[str, Any]]) -> int:
        groups = catalogue.patch_rows(rows)
        self._put(lambda connection: postgres_catalogue.put_items(connection, *groups))
        return len(rows)

    def items(self) -> pl.DataFrame:
        return self.database.read(postgres_catalogue.read_items)

    def item(self, item_id: str) -> Item | None:
        return self.database.read(lambda connection: postgres_catalogue.read_item(connection, item_id))

    def titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        query = "SELECT item_id, title FROM items WHERE item_id = ANY(%s)"
        rows = self.database.read(lambda connection: connection.execute(query, (list(item_ids),)).fetchall())
        return {str(row[0]): str(row[1]) for row in rows}

    def availability(self) -> list[tuple[str, str]]:
        query = "SELECT item_id, availability FROM items"
        rows = self.database.read(lambda connection: connection.execute(query).fetchall())
        return [(item_id, availability) for item_id, availability in rows]

    def items_version(self) -> int:
        return self.database.read(postgres_catalogue.items_version)

    def items_changed(self, since_version: int) -> tuple[int, list[Item]]:
        return self.database.read(lambda connection: postgres_catalogue.read_changed(connection, since_version))

    def put_users(self, users: pl.DataFrame) -> int:
        rows = catalogue.user_rows(users)
        self._put(lambda connection: postgres_catalogue.put_users(connection, rows))
        return len(rows.whole)

    def users(self) -> pl.DataFrame:
        query = "SELECT user_id, attributes FROM users ORDER BY position"
        rows = self.database.read(lambda connection: connection.execute(query).fetchall())
        return pl.DataFrame(rows, schema=tables.schema(tables.USERS), orient="row")

    def user(self, user_id: str) -> dict[str, str] | None:
        query = "SELECT attributes FROM users WHERE user_id = %s"
        row = self.database.read(lambda connection: connection.execute(query, (user_id,)).fetchone())
        return None if row is None else msgspec.json.decode(row[0], type=dict[str, str])

    def quarantine(self, frame: pl.DataFrame) -> int:
        self._writing()
        rows = tables.conform(frame, tables.QUARANTINE)
        if rows.height:
            self.database.write(lambda connection: postgres_catalogue.keep_refused(connection, rows), "quarantine")
        return rows.height

    def quarantined(self) -> pl.LazyFrame:
        rows = self.database.read(postgres_catalogue.read_refused)
        return pl.DataFrame(rows, schema=tables.schema(tables.QUARANTINE), orient="row").lazy()

    def quarantine_counts(self) -> dict[str, int]:
        query = "SELECT rule, count(*) FROM quarantine GROUP BY rule ORDER BY min(position)"
        rows = self.database.read(lambda connection: connection.execute(query).fetchall())
        return dict(Counter({str(row[0]): int(row[1]) for row in rows}).most_common())

    def copy_to(self, folder: Path) -> None:
        with SqliteStore.open(folder, create=True) as copied:
            transfer(self, copied)
        database.settle(folder)

    def verify(self) -> list[str]:
        problems = []
        for table in ("meta", "events", "items", "users", "quarantine"):
            try:
                self.database.read(partial(postgres_catalogue.read_all, table=table))
            except ServiceError as error:
                problems.append(f"{self.database.where}, table {table}: {error.what}")
        return problems

    def _record(self, rows: Rows) -> _Outcome:
        outcome: _Outcome = self._writing().run(rows)
        return outcome

    def _put(self, job: Any) -> None:
        self._writing()
        self.database.write(job, "catalogue")

    def _transact(self, batches: list[Rows]) -> list[_Outcome]:
        """Records what waits in one transaction. Called by the one thread that writes."""
        rows = [row for batch in batches for row in batch]
        with self.database.translated():
            seqs, last_seq = self._committed(rows)
        outcomes: list[_Outcome] = []
        for batch in batches:
            # The first to bring an id recorded it; whoever brings it again finds it gone.
            fresh = [seqs.pop(row[0], None) is not None for row in batch]
            outcomes.append((fresh, last_seq))
        return outcomes

    def _committed(self, rows: Rows) -> tuple[dict[str, int], int]:
        """event_id -> seq of what was new, and the newest seq, once on disk."""
        try:
            seqs = self._inserted(rows)
        except psycopg.OperationalError:
            if self._writer is None or not self._writer.broken:
                raise
            # The server was restarted since the last write: nothing of this was committed, so begin anew, once.
            seqs = self._inserted(rows)
        connection = self._connection()
        last_seq = max(seqs.values()) if seqs else postgres_log.last_seq(connection)
        try:
            connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            if not self._are_recorded(seqs):
                raise self.database.unknown() from error
        return seqs, last_seq

    def _inserted(self, rows: Rows) -> dict[str, int]:
        connection = self._connection()
        try:
            return postgres_log.insert(connection, self.database.schema, rows)
        except psycopg.Error:
            rollback(connection)
            raise

    def _are_recorded(self, seqs: dict[str, int]) -> bool:
        """Asked anew after the connection died while committing: what can be seen there is on disk."""
        try:
            return postgres_log.are_recorded(self._connection(), seqs)
        except psycopg.Error:
            return False

    def _connection(self) -> Connection:
        """The writing thread's connection, opened again where it died."""
        if self._writer is not None and self._writer.closed:
            self._writer = None
        if self._writer is None:
            self._writer = self.database.connect()
        return self._writer

    def _writing(self) -> GroupCommit[Rows]:
        if self._commits is None:
            raise CallerError(
                "The store was opened for reading.", where=self.database.where, next_step="Open it for writing."
            )
        if self._closed:
            raise ServiceError("The store is closed.", where=self.database.where, next_step="Open it again.")
        return self._commits
