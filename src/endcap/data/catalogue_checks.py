"""The catalogue and the shoppers, from raw rows to typed ones, by named rules as in `data.checks`.

Stated fills: no title or description becomes "", no availability means in stock, no attributes is an empty object.
They are counted where the file has the column. Columns of the file that are none of ours become attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from endcap.core import tables
from endcap.core.types import Availability
from endcap.data import cells, times
from endcap.data.checks import (
    Check,
    Checked,
    further_columns,
    missing,
    negative_price,
    not_a_number,
    not_finite,
    require_columns,
    run_checks,
    too_large,
    unreadable_time,
)
from endcap.data.lines import ROW
from endcap.data.quarantine import REASON, RULE, TYPED, collected, number_rows, quarantined
from endcap.data.sources import SourceConfig, Table

TEXTS = ("item_id", "title", "description", "currency", "brand")
STOCK = {kind.value: kind.value for kind in Availability} | {
    word: kind.value
    for kind, words in ((Availability.IN_STOCK, ("true", "yes")), (Availability.OUT_OF_STOCK, ("false", "no")))
    for word in words
}


def check_items(raw: pl.LazyFrame, config: SourceConfig, *, source: str) -> Checked:
    """Type a raw catalogue. Of rows with the same item_id the last counts.

    categories: a list, a JSON list, `A > B`, or `A|B`; of several `A > B` paths the first counts. images, audio: a
    list, a JSON list, or `A|B`. availability: one of `Availability`, or true/yes and false/no for in and out of stock.
    Raises DataError where there is no item_id column.
    """
    require_columns(raw, ["item_id"], source)
    readers: dict[str, Callable[[Any], Any]] = {
        "categories": cells.category_path,
        "images": cells.texts,
        "audio": cells.texts,
    }
    parsed = _with_attributes(_with_parsed(collected(number_rows(raw), source), readers), tables.ITEMS).lazy()
    typed: dict[str, pl.Expr] = {name: cells.text(parsed, name) for name in TEXTS}
    typed |= {name: pl.col(TYPED + name) for name in (*readers, "attributes")}
    typed |= {"price": cells.number(parsed, "price"), "availability": _availability(parsed)}
    checks = _item_checks(parsed, list(readers))
    typed["created_ms"], notes = pl.lit(None, pl.Int64), list[str]()
    if "created_ms" in parsed.collect_schema():
        when = times.reading(parsed, "created_ms", config.ts_unit, source)
        typed["created_ms"] = when.expr
        checks.append(unreadable_time(parsed, "created_ms", when.form))
        notes.append(when.note)
    typed = {column.name: typed[column.name] for column in tables.ITEMS}
    frame, refused, rows_in = run_checks(parsed, typed, checks, "items", source)
    frame, refused = _keep_last(parsed, frame, refused, "items", source)
    given, further = _columns_given(raw, tables.ITEMS)
    frame, fills = _fill_items(frame, config, given)
    given = tuple(name for name in typed if name in (*given, *fills))
    absent = [name for name in typed if name not in given]
    if absent:
        stock = "" if "availability" in given else ", and new ones are in_stock"
        notes.append(f"not in the file: {', '.join(absent)}; items known already keep theirs{stock}")
    return Checked(frame, refused, rows_in, fills, tuple(notes), given, further)


def check_users(raw: pl.LazyFrame, *, source: str) -> Checked:
    """Type a raw table of shoppers. Of rows with the same user_id the last counts. Raises as `check_items` does."""
    require_columns(raw, ["user_id"], source)
    parsed = _with_attributes(collected(number_rows(raw), source), tables.USERS).lazy()
    typed = {"user_id": cells.text(parsed, "user_id"), "attributes": pl.col(f"{TYPED}attributes")}
    checks = [missing("user_id"), _unreadable(parsed, "attributes", "a JSON object")]
    frame, refused, rows_in = run_checks(parsed, typed, checks, "users", source)
    frame, refused = _keep_last(parsed, frame, refused, "users", source)
    given, further = _columns_given(raw, tables.USERS)
    return Checked(frame, refused, rows_in, given=given, further=further)


def _columns_given(raw: pl.LazyFrame, columns: tuple[tables.Column, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The table's columns that the source says something of, and its further columns, which make up attributes."""
    found = raw.collect_schema().names()
    further = further_columns(found, columns)
    given = [name for name in tables.names(columns) if name in found or (name == "attributes" and further)]
    return tuple(given), further


def _with_parsed(rows: pl.DataFrame, readers: dict[str, Callable[[Any], Any]]) -> pl.DataFrame:
    """Add a `typed.` list column per reader; null where the cell cannot be read as a list."""
    kind = pl.List(pl.String())
    for name, read in readers.items():
        values = [read(value) for value in rows[name].to_list()] if name in rows.columns else [[]] * rows.height
        rows = rows.with_columns(pl.Series(TYPED + name, values, kind))
    return rows


def _with_attributes(rows: pl.DataFrame, columns: tuple[tables.Column, ...]) -> pl.DataFrame:
    """Add `typed.attributes`: the file's other columns, then its `attributes`, which win over a column so named."""
    others = further_columns(rows.columns, columns)
    values: list[str | None] = ["{}"] * rows.height
    if "attributes" in rows.columns:
        values = [cells.json_object(value) for value in rows["attributes"].to_list()]
    if others:
        further = rows.select(others).iter_rows(named=True)
        values = [cells.merged(other, value) for other, value in zip(further, values, strict=True)]
    return rows.with_columns(pl.Series(f"{TYPED}attributes", values, pl.String()))


def _item_checks(raw: pl.LazyFrame, lists: list[str]) -> list[Check]:
    return [
        missing("item_id"),
        not_a_number(raw, "price"),
        not_finite("price"),
        too_large(raw, "price"),
        negative_price(raw),
        Check(
            "availability",
            pl.col(f"{TYPED}availability").is_null() & cells.present(raw, "availability"),
            pl.format(f"The availability {{}} is none of {', '.join(Availability)}.", cells.shown(raw, "availability")),
        ),
        *(_unreadable(raw, name, "a list") for name in lists),
        _unreadable(raw, "attributes", "a JSON object"),
    ]


def _unreadable(raw: pl.LazyFrame, name: str, kind: str) -> Check:
    reason = pl.format(f"The {name} {{}} cannot be read as {kind}.", cells.shown(raw, name))
    return Check("wrong_type", pl.col(TYPED + name).is_null(), reason)


def _availability(raw: pl.LazyFrame) -> pl.Expr:
    written = cells.text(raw, "availability").str.strip_chars().str.to_lowercase().str.replace_all("[ -]", "_")
    return written.replace_strict(list(STOCK), list(STOCK.values()), default=None, return_dtype=pl.String)


def _keep_last(
    raw: pl.LazyFrame, frame: pl.DataFrame, refused: pl.DataFrame, table: Table, source: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    key = frame.columns[0]
    last = frame[key].is_last_distinct()
    if last.all():
        return frame, refused
    reason = pl.format(f"A later row has the same {key} '{{}}'; the last one counts.", key)
    earlier = frame.filter(~last).select(ROW, pl.lit(f"duplicate_{key}").alias(RULE), reason.alias(REASON))
    both = pl.concat([refused, quarantined(raw, earlier, table, source)])
    return frame.filter(last), both.sort("line", maintain_order=True)


def _fill_items(
    frame: pl.DataFrame, config: SourceConfig, given: tuple[str, ...]
) -> tuple[pl.DataFrame, dict[str, int]]:
    stated = {"title": "", "description": "", "availability": Availability.IN_STOCK.value}
    fills = {name: count for name in stated if name in given and (count := frame[name].null_count())}
    frame = frame.with_columns(pl.col(name).fill_null(pl.lit(value)) for name, value in stated.items())
    unnamed = pl.col("currency").is_null() & pl.col("price").is_not_null()
    if config.currency and (count := frame.select(unnamed.sum()).item()):
        fills["currency"] = count
        frame = frame.with_columns(currency=pl.when(unnamed).then(pl.lit(config.currency)).otherwise("currency"))
    return frame, fills
