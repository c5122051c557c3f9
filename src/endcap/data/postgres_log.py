"""The event log as rows of Postgres: inserted once under one lock, read back in pages.

Whoever gives out seqs holds the lock `events` until the commit can be seen, so that seqs become visible in order.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import polars as pl
from polars.io.plugins import register_io_source

from endcap.core import tables
from endcap.core.errors import CallerError, DataError
from endcap.core.types import Event
from endcap.data import log
from endcap.data.log import Row, Rows
from endcap.data.postgres import Connection, Database, begin

LOCK = "events"
PAGE = 100_000
STEP = 50_000

_NAMES = tables.names(tables.EVENTS)
_TEXTS = [column.name for column in tables.EVENTS if column.dtype == pl.String()]
_KINDS = {pl.String(): "text", pl.Float64(): "double precision", pl.Int64(): "bigint"}
_TYPED = [(column.name, _KINDS[column.dtype]) for column in tables.EVENTS]
_COLUMNS = ", ".join(_NAMES)
_GIVEN = ", ".join(f"given.{name}" for name in _NAMES)
_LAST = "SELECT coalesce(max(seq), 0) FROM events"
_FRESH = "NOT EXISTS (SELECT FROM events AS known WHERE known.event_id = given.event_id)"
_NUMBERED = f"""
INSERT INTO events (seq, {_COLUMNS})
SELECT ({_LAST}) + row_number() OVER (ORDER BY given.ord), {_GIVEN} FROM """  # noqa: S608
_INSERT = (
    f"{_NUMBERED} unnest({', '.join(f'%s::{kind}[]' for _, kind in _TYPED)})"
    f" WITH ORDINALITY AS given ({_COLUMNS}, ord) WHERE {_FRESH} ORDER BY given.ord RETURNING event_id, seq"
).encode()
_STAGE = (
    f"CREATE TEMPORARY TABLE staged (ord bigint, {', '.join(f'{name} {kind}' for name, kind in _TYPED)})"
).encode()
_COPY = f"COPY staged (ord, {_COLUMNS}) FROM STDIN".encode()
_HELD = f"SELECT given.ord FROM staged AS given WHERE NOT {_FRESH}".encode()  # noqa: S608
_UNSTAGE = f"{_NUMBERED} staged AS given WHERE {_FRESH} ORDER BY given.ord".encode()
_SELECT = f"SELECT {_COLUMNS}, seq FROM events"  # noqa: S608


def refuse_nul(rows: Rows) -> None:
    """CallerError where a text holds a NUL, the one sign that Postgres does not keep."""
    for position, row in enumerate(rows):
        if any(type(value) is str and "\0" in value for value in row):
            raise CallerError(
                "A text holds a NUL character.", where=f"events[{position}]", next_step="Send it without."
            )


def refuse_nul_in_table(table: pl.DataFrame) -> None:
    """DataError where a text holds a NUL."""
    found = table.filter(pl.any_horizontal(pl.col(_TEXTS).str.contains("\0", literal=True))).height
    if found:
        raise DataError(f"{found} of {table.height} events hold a NUL character.", next_step="Clean the table first.")


def last_seq(connection: Connection) -> int:
    row = connection.execute(_LAST).fetchone()
    return 0 if row is None else int(row[0])


def position(connection: Connection) -> tuple[int, int]:
    """last_seq and the catalogue's version, by one question."""
    query = f"SELECT ({_LAST}), (SELECT value FROM meta WHERE key = 'items_version')"  # noqa: S608
    row = connection.execute(query.encode()).fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1] or 0))


def insert(connection: Connection, schema: str, rows: Rows) -> dict[str, int]:
    """Begins a transaction and inserts what is new: event_id -> seq of it. The caller commits.

    An id that comes twice in rows is inserted where it comes first.
    """
    begin(connection, schema, LOCK)
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row[0], row)
    columns = [list(column) for column in zip(*first.values(), strict=True)] or [[] for _ in _NAMES]
    found = connection.execute(_INSERT, columns).fetchall()
    return {str(row[0]): int(row[1]) for row in found}


def are_recorded(connection: Connection, seqs: dict[str, int]) -> bool:
    """Whether every one of these events is in the log, with its seq."""
    query = "SELECT count(*) FROM unnest(%s::text[], %s::bigint[]) AS given (event_id, seq)"
    query += " JOIN events AS known USING (event_id, seq)"
    row = connection.execute(query.encode(), (list(seqs), list(seqs.values()))).fetchone()
    return row is not None and row[0] == len(seqs)


def copy_in(database: Database, table: pl.DataFrame) -> list[int]:
    """Records a table in steps, each a transaction; returns the rows of it that were there already. Each event_id
    comes once in it."""
    held: list[int] = []
    with database.translated(), database.connect() as connection:
        connection.execute(_STAGE)
        for start in range(0, table.height, STEP):
            connection.execute("TRUNCATE staged")
            with connection.cursor().copy(_COPY) as copy:
                for place, row in enumerate(table.slice(start, STEP).iter_rows(), start):
                    copy.write_row((place, *row))
            connection.execute("ANALYZE staged")
            begin(connection, database.schema, LOCK)
            held += [row[0] for row in connection.execute(_HELD)]
            connection.execute(_UNSTAGE)
            connection.execute("COMMIT")
    return held


def read_after(connection: Connection, seq: int) -> list[tuple[int, Event]]:
    return log.as_events(connection.execute(f"{_SELECT} WHERE seq > %s ORDER BY seq".encode(), (seq,)))


def read_of(connection: Connection, user_ids: Sequence[str], since_seq: int) -> list[tuple[int, Event]]:
    query = f"{_SELECT} WHERE user_id = ANY(%s) AND seq > %s ORDER BY seq".encode()
    return log.as_events(connection.execute(query, (list(user_ids), since_seq)))


def scan(database: Database, since_seq: int, until_seq: int) -> pl.LazyFrame:
    """The events with since_seq < seq <= until_seq, read in pages when collected."""

    def pages(
        names: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        left, seq = n_rows, since_seq
        wanted = list(log.SCHEMA) if names is None else names
        while seq < until_seq and (left is None or left > 0):
            page = _page(database, [*dict.fromkeys([*wanted, "seq"])], seq, until_seq, min(PAGE, left or PAGE))
            if not page.height:
                return
            seq = page["seq"][-1]
            left = None if left is None else left - page.height
            page = page.select(wanted)
            yield page if predicate is None else page.filter(predicate)

    return register_io_source(pages, schema=log.SCHEMA)


def _page(database: Database, names: list[str], since_seq: int, until_seq: int, rows: int) -> pl.DataFrame:
    # Texts are quoted and nulls are not: that is how an empty text and none are told apart.
    texts = [name for name in names if name in _TEXTS]
    quoted = f", FORCE_QUOTE ({', '.join(texts)})" if texts else ""
    query = f"SELECT {', '.join(names)} FROM events WHERE seq > {since_seq} AND seq <= {until_seq}"  # noqa: S608
    copy_out = f"COPY ({query} ORDER BY seq LIMIT {rows}) TO STDOUT (FORMAT csv{quoted})".encode()

    def read(connection: Connection) -> bytes:
        with connection.cursor().copy(copy_out) as copy:
            return b"".join(copy)

    kinds = {name: log.SCHEMA[name] for name in names}
    content = database.read(read)
    if not content:
        return pl.DataFrame(schema=kinds)
    return pl.read_csv(io.BytesIO(content), has_header=False, schema=kinds)
