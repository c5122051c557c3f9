"""Live events as rows of SQLite: how they are checked, inserted once, and read back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw
import msgspec
import polars as pl

from endcap.core import tables
from endcap.core.errors import CallerError, DataError
from endcap.core.types import Event, EventType
from endcap.data.database import last_seq
from endcap.data.segments import SegmentFiles, hash_ids

Row = tuple[Any, ...]
Rows = list[Row]
SegmentJob = Callable[[apsw.Connection], tuple[pl.Series, int]]

_NAMES = tables.names(tables.EVENTS)
_REQUIRED = [column.name for column in tables.EVENTS if not column.nullable and column.name != "event_id"]
SCHEMA = {**tables.schema(tables.EVENTS), "seq": pl.Int64()}
_INSERT = f"INSERT INTO events ({', '.join(_NAMES)}, seq) VALUES (?{', ?' * len(_NAMES)})"  # noqa: S608
_HELD = "SELECT event_id FROM events WHERE event_id IN (SELECT value FROM json_each(?))"
_SELECT = f"SELECT {', '.join(_NAMES)}, seq FROM events WHERE seq > ? ORDER BY seq"  # noqa: S608
_SELECT_OF = (
    f"SELECT {', '.join(_NAMES)}, seq FROM events"  # noqa: S608
    " WHERE user_id IN (SELECT value FROM json_each(?)) AND seq > ? ORDER BY seq"
)
_TS_MS = _NAMES.index("ts_ms")
_INT64 = range(-(2**63), 2**63)
_EVENT = {field.name: field for field in msgspec.structs.fields(Event)}
# An event whose fields stand in the order of the table's columns, so that its tuple is a row.
_Recorded = msgspec.defstruct(
    "Event",
    [
        (name, _EVENT[name].type) if _EVENT[name].required else (name, _EVENT[name].type, _EVENT[name].default)
        for name in _NAMES
    ],
    kw_only=True,
    forbid_unknown_fields=True,
)
_DECODER = msgspec.json.Decoder(list[_Recorded])  # type: ignore[valid-type]


def event_rows(events: Sequence[Event]) -> Rows:
    """One tuple an event, in the order of `tables.EVENTS`. CallerError if one is not what its annotations say."""
    try:
        rows = [msgspec.structs.astuple(event) for event in _DECODER.decode(msgspec.json.encode(events))]
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise CallerError(
            f"An event is not valid: {error}.", where="events", next_step="Mend it and send the batch again."
        ) from error
    for position, row in enumerate(rows):
        if row[_TS_MS] not in _INT64:
            raise CallerError(
                f"The time {row[_TS_MS]} is not a number of milliseconds.",
                where=f"events[{position}].ts_ms",
                next_step="Send UTC milliseconds.",
            )
    fresh = iter(fresh_ids(sum(not row[0] for row in rows)))
    return [(event_id or next(fresh), kind.value, *rest) for event_id, kind, *rest in rows]


def fresh_ids(count: int) -> list[str]:
    """Event ids of 32 hex digits, by lot: 128 bits each."""
    digits = os.urandom(16 * count).hex()
    return [digits[at : at + 32] for at in range(0, len(digits), 32)]


def checked_table(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame in exactly the columns of `tables.EVENTS`, every row with an event_id."""
    try:
        table = tables.conform(frame, tables.EVENTS)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"A column has the wrong type: {error}.", next_step="Clean the table first.") from error
    for name in _REQUIRED:
        gaps = table[name].null_count()
        if gaps:
            raise DataError(f"{gaps} of {table.height} events have no {name}.", next_step="Clean the table first.")
    unknown = table.filter(~pl.col("event_type").is_in([kind.value for kind in EventType]))
    if unknown.height:
        raise DataError(
            f"The event_type {unknown['event_type'][0]!r} is not known ({unknown.height} rows).",
            next_step="Clean the table first.",
        )
    table = table.with_columns(pl.col(pl.Float64).fill_nan(None))
    unnamed = table["event_id"].is_null() | (table["event_id"] == "").fill_null(True)
    if not unnamed.any():
        return table
    ids = table["event_id"].scatter(unnamed.arg_true(), fresh_ids(int(unnamed.sum())))
    return table.with_columns(ids)


def insert(connection: apsw.Connection, rows: Rows, files: SegmentFiles) -> tuple[list[bool], int]:
    """Inserts what is new; returns which rows were, and the newest seq. Must run inside a write transaction."""
    ids = [row[0] for row in rows]
    held = {event_id for (event_id,) in connection.execute(_HELD, (msgspec.json.encode(ids).decode(),))}
    if files.any_committed:
        series = pl.Series(ids, dtype=pl.String)
        held.update(series.filter(pl.Series(files.holding(series, hash_ids(series)))))
    seq, fresh, numbered = last_seq(connection), [], []
    for row in rows:
        is_fresh = row[0] not in held
        if is_fresh:
            held.add(row[0])
            seq += 1
            numbered.append((*row, seq))
        fresh.append(is_fresh)
    connection.executemany(_INSERT, numbered)
    return fresh, seq


def read_live(connection: apsw.Connection, since_seq: int) -> pl.DataFrame:
    """Live events after a seq: the columns of `tables.EVENTS`, then `seq`."""
    return pl.DataFrame(connection.execute(_SELECT, (since_seq,)).fetchall(), schema=SCHEMA, orient="row")


def read_live_of(connection: apsw.Connection, user_ids: Sequence[str], since_seq: int) -> pl.DataFrame:
    """Live events of some users after a seq: as `read_live`."""
    rows = connection.execute(_SELECT_OF, (msgspec.json.encode(user_ids).decode(), since_seq)).fetchall()
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def read_live_events(connection: apsw.Connection, since_seq: int) -> list[tuple[int, Event]]:
    return as_events(connection.execute(_SELECT, (since_seq,)))


def read_live_ids(connection: apsw.Connection, since_seq: int = 0) -> pl.Series:
    rows = connection.execute("SELECT event_id FROM events WHERE seq > ?", (since_seq,))
    return pl.Series([event_id for (event_id,) in rows], dtype=pl.String)


def events_of(frame: pl.DataFrame) -> list[tuple[int, Event]]:
    """(seq, event) of each row of what `Store.events` gives."""
    return as_events(frame.select(*_NAMES, "seq").iter_rows())


def as_events(rows: Iterable[tuple[Any, ...]]) -> list[tuple[int, Event]]:
    """(seq, event) of rows in the columns of `tables.EVENTS`, then `seq`."""
    return [(row[-1], _event_of(row)) for row in rows]


def _event_of(row: tuple[Any, ...]) -> Event:
    return Event(
        event_id=row[0],
        event_type=EventType(row[1]),
        user_id=row[2],
        ts_ms=row[3],
        item_id=row[4],
        session_id=row[5],
        quantity=row[6],
        price=row[7],
        currency=row[8],
        value=row[9],
        query=row[10],
        placement=row[11],
        recommendation_id=row[12],
    )
