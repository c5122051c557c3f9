"""Times in whatever form a file has them, as UTC milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from endcap.data.quarantine import collected
from endcap.data.sources import TimeUnit

SAMPLE_ROWS = 100_000
PER_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "iso": "ISO 8601 text"}
# 1e11 is the year 5138 in seconds and 1973 in milliseconds; each further unit is a thousand times finer.
MAGNITUDES = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))


@dataclass(frozen=True, slots=True)
class TimeReading:
    """How one column's times are read. expr: Int64 UTC milliseconds, null where it is no time."""

    expr: pl.Expr
    note: str


def reading(raw: pl.LazyFrame, column: str, unit: TimeUnit, source: str) -> TimeReading:
    """Decide how to read a column. `auto` looks at the first 100,000 rows: the form most of them have, and the
    magnitude of their median. Text without a UTC offset, and naive datetimes, are taken as UTC.
    """
    dtype = raw.collect_schema()[column]
    cell = pl.col(column)
    if dtype.is_temporal() and dtype in (pl.Date, pl.Datetime):
        return TimeReading(cell.cast(pl.Datetime("ms")).dt.epoch("ms"), f"{column}: stored as {dtype}")
    if dtype != pl.String and not dtype.is_numeric():
        return TimeReading(pl.lit(None, pl.Int64), f"{column}: {dtype} is not a time")
    number = cell.str.strip_chars().cast(pl.Float64, strict=False) if dtype == pl.String else cell.cast(pl.Float64)
    chosen = _guess(raw, cell, number, source) if unit == "auto" else unit
    note = f"{column}: read as {NAMES[chosen]}, {'judged by its values' if unit == 'auto' else 'as configured'}"
    if chosen != "iso":
        return TimeReading((number * PER_MS[chosen]).round().cast(pl.Int64, strict=False), note)
    return TimeReading(_iso(cell) if dtype == pl.String else pl.lit(None, pl.Int64), note)


def _guess(raw: pl.LazyFrame, cell: pl.Expr, number: pl.Expr, source: str) -> str:
    sample = collected(raw.head(SAMPLE_ROWS).select(cell.alias("cell"), number.alias("number")), source)
    numbers = sample["number"].drop_nulls().drop_nans()
    if sample.schema["cell"] == pl.String and sample["cell"].str.contains(r"^\s*\d{4}-\d\d-\d\d").sum() > numbers.len():
        return "iso"
    median = numbers.abs().median()
    size = median if isinstance(median, float) else 0.0
    return next((unit for below, unit in MAGNITUDES if size < below), "ns")


def _iso(cell: pl.Expr) -> pl.Expr:
    """Complete the text to `date T time offset`, then parse it once: parsing is the costly part."""
    text = cell.str.strip_chars().str.replace(" ", "T", literal=True)
    length = text.str.len_bytes()
    has_offset = text.str.contains(r"T.*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$")
    complete = (
        pl.when(length == 10)
        .then(text + "T00:00:00Z")
        .when(length == 16)
        .then(text + ":00Z")
        .when(has_offset)
        .then(text)
        .otherwise(text + "Z")
    )
    parsed = complete.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="ms", strict=False)
    return parsed.dt.epoch("ms")
