"""Every column of every table, once: name, dtype, unit, whether it may be missing."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    dtype: pl.DataType
    nullable: bool = True
    meaning: str = ""


def _text(name: str, meaning: str, nullable: bool = True) -> Column:
    return Column(name, pl.String(), nullable, meaning)


EVENTS: tuple[Column, ...] = (
    _text("event_id", "makes recording idempotent; derived from the other columns where the source has none", False),
    _text("event_type", "one of EventType", False),
    _text("user_id", "the shopper, or an anonymous visitor", False),
    Column("ts_ms", pl.Int64(), False, "when, UTC milliseconds"),
    _text("item_id", "the item; missing only for searches"),
    _text("session_id", "the visit; for purchases the order"),
    Column("quantity", pl.Float64(), True, "units"),
    Column("price", pl.Float64(), True, "per unit, in currency"),
    _text("currency", "ISO 4217"),
    Column("value", pl.Float64(), True, "a rating"),
    _text("query", "what was searched"),
    _text("placement", "where the item was shown"),
    _text("recommendation_id", "the slate that led here"),
)

ITEMS: tuple[Column, ...] = (
    _text("item_id", "the shop's id", False),
    _text("title", "what a shopper reads; empty where unknown", False),
    _text("description", "longer text; empty where unknown", False),
    Column("price", pl.Float64(), True, "list price, in currency"),
    _text("currency", "ISO 4217"),
    Column("categories", pl.List(pl.String()), False, "a path from broad to narrow"),
    _text("brand", "maker or label"),
    _text("attributes", "a JSON object of further names and values", False),
    Column("images", pl.List(pl.String()), False, "paths or URLs"),
    Column("audio", pl.List(pl.String()), False, "paths or URLs"),
    _text("availability", "one of Availability", False),
    Column("created_ms", pl.Int64(), True, "when it was listed, UTC milliseconds"),
)

USERS: tuple[Column, ...] = (
    _text("user_id", "the shopper", False),
    _text("attributes", "a JSON object of names and values", False),
)

QUARANTINE: tuple[Column, ...] = (
    _text("table", "events, items or users", False),
    _text("rule", "the name of the rule that refused the row", False),
    _text("reason", "a sentence", False),
    _text("source", "the file", False),
    Column("line", pl.Int64(), True, "1-based row or line in the file, where it has one"),
    _text("raw", "the row as it came, JSON or text", False),
)


def schema(columns: tuple[Column, ...]) -> dict[str, pl.DataType]:
    """name -> polars dtype, in order."""
    return {column.name: column.dtype for column in columns}


def names(columns: tuple[Column, ...]) -> list[str]:
    return [column.name for column in columns]


def empty(columns: tuple[Column, ...]) -> pl.DataFrame:
    return pl.DataFrame(schema=schema(columns))


def conform(frame: pl.DataFrame, columns: tuple[Column, ...]) -> pl.DataFrame:
    """The frame with exactly these columns in order; missing ones are null, dtypes are cast."""
    return frame.select(
        pl.col(c.name).cast(c.dtype) if c.name in frame.columns else pl.lit(None, c.dtype).alias(c.name)
        for c in columns
    )
