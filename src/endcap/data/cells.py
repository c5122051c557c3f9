"""One cell of a raw table, text or typed, as the type its column should have. Null means missing or not readable."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import polars as pl

PATH_MARK, ALTERNATIVE_MARK = ">", "|"
EXACT_FLOAT = float(2**53)


def text(raw: pl.LazyFrame, name: str) -> pl.Expr:
    """String; blank text is missing. A whole float (a nullable integer column, as pandas writes it) loses its `.0`."""
    dtype = raw.collect_schema().get(name)
    cell = pl.col(name)
    if dtype is None or dtype.is_nested() or dtype == pl.Binary:
        return pl.lit(None, pl.String)
    if dtype == pl.String:
        return pl.when(cell.str.strip_chars() != "").then(cell)
    if dtype.is_float():
        whole = (cell == cell.floor()) & (cell.abs() < EXACT_FLOAT)
        integer = pl.when(whole).then(cell).cast(pl.Int64).cast(pl.String)
        return pl.when(cell.is_nan().not_()).then(pl.coalesce(integer, cell.cast(pl.String)))
    return cell.cast(pl.String)


def number(raw: pl.LazyFrame, name: str) -> pl.Expr:
    """Float64. Thousands marks, decimal commas and currency signs are not guessed at: such text is not readable.

    NaN in a float column is how pandas says missing, and is read so; the text `nan` is a number that is not finite.
    """
    dtype = raw.collect_schema().get(name)
    if dtype is None or dtype.is_nested() or dtype == pl.Binary or dtype.is_temporal():
        return pl.lit(None, pl.Float64)
    cell = pl.col(name).str.strip_chars() if dtype == pl.String else pl.col(name)
    numbers = cell.cast(pl.Float64, strict=False)
    return numbers.fill_nan(None) if dtype.is_float() else numbers


def present(raw: pl.LazyFrame, name: str) -> pl.Expr:
    """Whether there is anything in the cell, readable or not."""
    dtype = raw.collect_schema().get(name)
    if dtype is None:
        return pl.lit(False)
    if dtype == pl.String:
        return (pl.col(name).str.strip_chars() != "").fill_null(False)
    if dtype.is_float():
        return pl.col(name).is_not_nan().fill_null(False)
    return pl.col(name).is_not_null()


def shown(raw: pl.LazyFrame, name: str) -> pl.Expr:
    """The cell as a reader of a sentence should see it, in quotes, at most 80 characters."""
    dtype = raw.collect_schema().get(name)
    if dtype is None or dtype.is_nested() or dtype == pl.Binary:
        return pl.lit("it")
    return pl.format("'{}'", pl.col(name).cast(pl.String).fill_null("").str.slice(0, 80))


def texts(value: Any) -> list[str] | None:
    """A list of texts from a list, a JSON list, or text with `|` between; None where it is none of these."""
    if value is None:
        return []
    if isinstance(value, str):
        stripped = value.strip()
        if stripped.startswith("["):
            return _json_texts(stripped)
        value = stripped.split(ALTERNATIVE_MARK)
    if not isinstance(value, list | tuple):
        return None
    parts = [part for part in value if part is not None]
    if any(isinstance(part, list | dict) for part in parts):
        return None
    return [trimmed for part in parts if (trimmed := str(part).strip())]


def category_path(value: Any) -> list[str] | None:
    """A path from broad to narrow. Of several paths (`A > B` each) the first counts."""
    if isinstance(value, str) and PATH_MARK in value and not value.strip().startswith("["):
        first = value.split(ALTERNATIVE_MARK)[0]
        value = [first if PATH_MARK in first else value]
    parts = texts(value)
    if not parts or PATH_MARK not in parts[0]:
        return parts
    return [trimmed for part in parts[0].split(PATH_MARK) if (trimmed := part.strip())]


def json_object(value: Any) -> str | None:
    """A JSON object of names and texts from such an object, as text or as a struct; None where it is none.

    Missing values are left out; lists become their parts with `|` between.
    """
    if value is None or value == "":
        return "{}"
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return None
    if not isinstance(value, dict):
        return None
    return msgspec.json.encode({str(name): _flat(part) for name, part in value.items() if _is_there(part)}).decode()


def merged(others: dict[str, Any], attributes: str | None) -> str | None:
    """Further columns as a JSON object, with `attributes` (such an object, or null if unreadable) laid over them."""
    if attributes is None:
        return None
    known = msgspec.json.decode(attributes)
    return json_object({**{name: _json_safe(value) for name, value in others.items()}, **known})


def _json_safe(value: Any) -> Any:
    return value if isinstance(value, str | int | float | list | dict | None) else str(value)


def _is_there(part: Any) -> bool:
    return part is not None and part not in ("", []) and not (isinstance(part, float) and math.isnan(part))


def _flat(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, list) and not any(isinstance(one, list | dict) for one in part):
        return ALTERNATIVE_MARK.join(str(one) for one in part if one is not None)
    return msgspec.json.encode(part).decode() if isinstance(part, list | dict | bool) else str(part)


def _json_texts(value: str) -> list[str] | None:
    try:
        decoded = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return None
    return texts(decoded) if isinstance(decoded, list) else None
