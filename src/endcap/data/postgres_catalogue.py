"""The catalogue, the users and what was refused, as rows of Postgres. What is said in `data.catalogue` holds here."""

from __future__ import annotations

from typing import Any

import polars as pl

from endcap.core import tables
from endcap.core.errors import DataError
from endcap.core.types import Item
from endcap.data import catalogue
from endcap.data.catalogue import ITEM_NAMES, USER_NAMES, VERSION, Rows
from endcap.data.postgres import Connection, get_meta, set_meta

_SELECT = f"SELECT {', '.join(ITEM_NAMES)} FROM items"  # noqa: S608
_REFUSED = ", ".join(f'"{name}"' for name in tables.names(tables.QUARANTINE))


def put_items(connection: Connection, *groups: Rows) -> None:
    """Insert, or change what is given, by item_id. All groups make one new version. Inside a transaction that holds
    the lock `catalogue`, so that versions become visible in order."""
    whole = [rows for rows in groups if rows.whole]
    if not whole:
        return
    version = items_version(connection) + 1
    for rows in whole:
        _upsert(connection, "items", [*ITEM_NAMES, VERSION], catalogue.versioned(rows, version))
        _chain(connection, "items", rows)
    set_meta(connection, "items_version", str(version))


def put_users(connection: Connection, rows: Rows) -> None:
    if rows.whole:
        _upsert(connection, "users", USER_NAMES, rows)
        _chain(connection, "users", rows)


def items_version(connection: Connection) -> int:
    return int(get_meta(connection, "items_version", "0"))


def read_items(connection: Connection) -> pl.DataFrame:
    return catalogue.items_frame(connection.execute(f"{_SELECT} ORDER BY position".encode()).fetchall())


def read_item(connection: Connection, item_id: str) -> Item | None:
    row = connection.execute(f"{_SELECT} WHERE item_id = %s".encode(), (item_id,)).fetchone()
    return None if row is None else catalogue.item_of(row)


def read_changed(connection: Connection, since_version: int) -> tuple[int, list[Item]]:
    """The version, and the items written after an earlier one; both of one moment."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        version = items_version(connection)
        query = f"{_SELECT} WHERE version > %s ORDER BY version, position".encode()
        return version, [catalogue.item_of(row) for row in connection.execute(query, (since_version,))]


def keep_refused(connection: Connection, frame: pl.DataFrame) -> None:
    # Postgres keeps no NUL, and what was refused may hold one.
    texts = [column.name for column in tables.QUARANTINE if column.dtype == pl.String()]
    plain = frame.with_columns(pl.col(texts).str.replace_all("\0", "\ufffd", literal=True))
    with connection.cursor().copy(f"COPY quarantine ({_REFUSED}) FROM STDIN".encode()) as copy:
        for row in plain.iter_rows():
            copy.write_row(row)


def read_refused(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT {_REFUSED} FROM quarantine ORDER BY position".encode()).fetchall()  # noqa: S608


def read_all(connection: Connection, table: str) -> None:
    """Read every row of a table whole, so that what is damaged is met."""
    connection.execute(f"SELECT sum(length(whole::text)) FROM {table} AS whole".encode())  # noqa: S608


def _upsert(connection: Connection, table: str, names: list[str], rows: Rows) -> None:
    if any(type(value) is str and "\0" in value for row in rows.whole for value in row):
        raise DataError("A text holds a NUL character.", where=table, next_step="Send it without.")
    connection.cursor().executemany(catalogue.upsert_sql(table, names, rows.given, "%s").encode(), rows.whole)


def _chain(connection: Connection, table: str, rows: Rows) -> None:
    set_meta(connection, f"{table}_digest", catalogue.chained(get_meta(connection, f"{table}_digest", ""), rows))
