"""The catalogue and the users of a workspace: rows of SQLite, the newest version of each only.

Lists are kept as JSON text. A table that lacks a column leaves it as it is in the rows that are known already. Every
write moves a version number on and chains a digest of what was written, so that a release can say exactly which
catalogue it was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import apsw
import msgspec
import polars as pl

from endcap.core import tables
from endcap.core.errors import DataError
from endcap.core.types import Availability, Item
from endcap.data.database import get_meta, set_meta

_LISTS = ("categories", "images", "audio")
_DEFAULTS: dict[str, Any] = {
    "title": "",
    "description": "",
    "attributes": "{}",
    "availability": Availability.IN_STOCK.value,
}
ITEM_NAMES = tables.names(tables.ITEMS)
USER_NAMES = tables.names(tables.USERS)
VERSION = "version"
_SELECT = f"SELECT {', '.join(ITEM_NAMES)} FROM items"  # noqa: S608


class Rows(NamedTuple):
    """whole: a tuple a row, in the order of the table's columns. given: the columns to write where a row is known."""

    given: list[str]
    whole: list[tuple[Any, ...]]


def item_rows(items: pl.DataFrame | Sequence[Item]) -> Rows:
    """Checked rows for `put_items`. Columns that are missing get the defaults of `Item` where the item is new."""
    if not isinstance(items, pl.DataFrame):
        return Rows(ITEM_NAMES, [_row_of(item) for item in _sound(items)])
    frame = _conformed(items, tables.ITEMS)
    _refuse_missing(frame, "item_id", "items")
    frame = frame.with_columns(
        *(pl.col(name).fill_null(value) for name, value in _DEFAULTS.items()),
        *(pl.col(name).fill_null(pl.lit([], pl.List(pl.String))).list.drop_nulls() for name in _LISTS),
        pl.col("price").fill_nan(None),
    )
    _refuse_unknown_availability(frame)
    _refuse_bad_attributes(frame, "item_id")
    return Rows(_given(items, ITEM_NAMES), _with_json_lists(frame))


def user_rows(users: pl.DataFrame) -> Rows:
    """Checked rows for `put_users`."""
    frame = _conformed(users, tables.USERS)
    _refuse_missing(frame, "user_id", "users")
    frame = frame.with_columns(pl.col("attributes").fill_null("{}"))
    _refuse_bad_attributes(frame, "user_id")
    return Rows(_given(users, USER_NAMES), frame.rows())


def patch_rows(rows: Sequence[Mapping[str, Any]]) -> list[Rows]:
    """Checked rows for `put_items`: those that follow one another and name the same fields together."""
    return [item_rows(_patch_frame(names, list(group))) for names, group in groupby(rows, sorted)]


def put_items(connection: apsw.Connection, *groups: Rows) -> int:
    """Insert, or change what is given, by item_id; returns the number of rows. All groups make one new version."""
    whole = [rows for rows in groups if rows.whole]
    if not whole:
        return 0
    version = items_version(connection) + 1
    for rows in whole:
        _upsert(connection, "items", [*ITEM_NAMES, VERSION], versioned(rows, version))
        _chain(connection, "items", rows)
    set_meta(connection, "items_version", str(version))
    return sum(len(rows.whole) for rows in whole)


def put_users(connection: apsw.Connection, rows: Rows) -> int:
    """Insert, or change what is given, by user_id; returns the number of rows."""
    if rows.whole:
        _upsert(connection, "users", USER_NAMES, rows)
        _chain(connection, "users", rows)
    return len(rows.whole)


def items_version(connection: apsw.Connection) -> int:
    return int(get_meta(connection, "items_version", "0"))


def read_items(connection: apsw.Connection) -> pl.DataFrame:
    """Columns of `tables.ITEMS`, in the order in which the items first came."""
    return items_frame(connection.execute(f"{_SELECT} ORDER BY position").fetchall())


def items_frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Stored rows in the columns of `tables.ITEMS`."""
    stored = {name: pl.String() if name in _LISTS else kind for name, kind in tables.schema(tables.ITEMS).items()}
    frame = pl.DataFrame(rows, schema=stored, orient="row")
    return frame.with_columns(pl.col(name).str.json_decode(pl.List(pl.String)) for name in _LISTS)


def read_item(connection: apsw.Connection, item_id: str) -> Item | None:
    row = connection.execute(f"{_SELECT} WHERE item_id = ?", (item_id,)).fetchone()
    return None if row is None else item_of(row)


def read_changed(connection: apsw.Connection, since_version: int) -> list[Item]:
    """The items written after a version, in the order in which they were."""
    rows = connection.execute(f"{_SELECT} WHERE version > ? ORDER BY version, position", (since_version,))
    return [item_of(row) for row in rows]


def item_of(row: tuple[Any, ...]) -> Item:
    """The item of a stored row."""
    values = dict(zip(ITEM_NAMES, row, strict=True))
    for name in (*_LISTS, "attributes"):
        values[name] = msgspec.json.decode(values[name])
    return msgspec.convert(values, Item)


def read_titles(connection: apsw.Connection, item_ids: Sequence[str]) -> dict[str, str]:
    """item_id -> title of those that are in the catalogue."""
    query = "SELECT item_id, title FROM items WHERE item_id IN (SELECT value FROM json_each(?))"
    rows = connection.execute(query, (_json(item_ids),))
    return {str(item_id): str(title) for item_id, title in rows}


def read_users(connection: apsw.Connection) -> pl.DataFrame:
    """Columns of `tables.USERS`, in the order in which the users first came."""
    rows = connection.execute("SELECT user_id, attributes FROM users ORDER BY position").fetchall()
    return pl.DataFrame(rows, schema=tables.schema(tables.USERS), orient="row")


def read_user(connection: apsw.Connection, user_id: str) -> dict[str, str] | None:
    text: str | None = connection.execute("SELECT attributes FROM users WHERE user_id = ?", (user_id,)).get
    return None if text is None else msgspec.json.decode(text, type=dict[str, str])


def upsert_sql(table: str, names: Sequence[str], given: Sequence[str], mark: str) -> str:
    """Insert a row, or change what is given where its first column is known and something of it differs, so that a
    `version` among the names moves on for what changed alone. mark: the driver's for a value."""
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name in given)
    differ = [f"{table}.{name} IS DISTINCT FROM excluded.{name}" for name in names if name in given and name != VERSION]
    return (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"  # noqa: S608
        f" ON CONFLICT ({names[0]}) DO UPDATE SET {changes} WHERE {' OR '.join(differ)}"
    )


def chained(digest: str, rows: Rows) -> str:
    """The digest of a table after more rows were put into it."""
    chain = hashlib.blake2b(digest.encode(), digest_size=16)
    chain.update(msgspec.json.encode(rows))
    return chain.hexdigest()


def _upsert(connection: apsw.Connection, table: str, names: list[str], rows: Rows) -> None:
    connection.executemany(upsert_sql(table, names, rows.given, "?"), rows.whole)


def versioned(rows: Rows, version: int) -> Rows:
    return Rows([*rows.given, VERSION], [(*row, version) for row in rows.whole])


def _chain(connection: apsw.Connection, table: str, rows: Rows) -> None:
    set_meta(connection, f"{table}_digest", chained(get_meta(connection, f"{table}_digest", ""), rows))


def _patch_frame(names: list[str], rows: list[Mapping[str, Any]]) -> pl.DataFrame:
    kinds = tables.schema(tables.ITEMS)
    if wrong := [name for name in names if name not in kinds]:
        raise DataError(
            f"An item has no field {wrong[0]!r}.", where="items", next_step=f"The fields are {', '.join(kinds)}."
        )
    if "item_id" not in names:
        raise DataError("A row has no item_id.", where="items", next_step="Name the item that changes.")
    plain = [
        {name: _json(row[name]) if isinstance(row[name], Mapping) else row[name] for name in names} for row in rows
    ]
    try:
        return pl.DataFrame(plain, schema={name: kinds[name] for name in names}, strict=True)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"An item is not valid: {error}.", where="items", next_step="Send the types of Item."
        ) from error


def _given(frame: pl.DataFrame, names: list[str]) -> list[str]:
    return [name for name in names if name in frame.columns]


def _conformed(frame: pl.DataFrame, columns: tuple[tables.Column, ...]) -> pl.DataFrame:
    try:
        return tables.conform(frame, columns)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"A column has the wrong type: {error}.", next_step="See endcap.core.tables.") from error


def _sound(items: Sequence[Item]) -> list[Item]:
    """The items after a round trip, which refuses what their annotations forbid."""
    try:
        return msgspec.json.decode(msgspec.json.encode(items), type=list[Item])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise DataError(f"An item is not valid: {error}.", next_step="Mend it and put the items again.") from error


def _row_of(item: Item) -> tuple[Any, ...]:
    return (
        item.item_id,
        item.title,
        item.description,
        item.price,
        item.currency,
        _json(item.categories),
        item.brand,
        _json(item.attributes),
        _json(item.images),
        _json(item.audio),
        item.availability.value,
        item.created_ms,
    )


def _with_json_lists(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    texts = {name: pl.Series(name, [_json(value) for value in frame[name].to_list()], pl.String) for name in _LISTS}
    return frame.with_columns(**texts).rows()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _refuse_missing(frame: pl.DataFrame, name: str, table: str) -> None:
    missing = frame[name].null_count()
    if missing:
        raise DataError(f"{missing} of {frame.height} {table} have no {name}.", next_step="Clean the table first.")


def _refuse_unknown_availability(frame: pl.DataFrame) -> None:
    wrong = frame.filter(~pl.col("availability").is_in([kind.value for kind in Availability]))
    if wrong.height:
        raise DataError(
            f"The availability {wrong['availability'][0]!r} is not known ({wrong.height} rows).",
            where=f"item {wrong['item_id'][0]!r}",
            next_step=f"Use one of {', '.join(Availability)}.",
        )


def _refuse_bad_attributes(frame: pl.DataFrame, key: str) -> None:
    decoder = msgspec.json.Decoder(dict[str, str])
    for name, text in zip(frame[key].to_list(), frame["attributes"].to_list(), strict=True):
        try:
            decoder.decode(text)
        except msgspec.MsgspecError as error:
            raise DataError(
                f"The attributes are not a JSON object of text values: {error}.",
                where=f"{key} {name!r}",
                next_step="Turn the values into text.",
            ) from error
