"""Times in whatever form a file has them, as UTC milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from endcap.data.quarantine import collected
from endcap.data.sources import TimeUnit

SAMPLE_CELLS = 100_000
PER_MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "iso": "ISO 8601 text"}
ANY_FORM = "a number or ISO 8601 text, such as 2026-01-31T12:00:00Z"
# 1e11 is the year 5138 in seconds and 1973 in milliseconds; each further unit is a thousand times finer.
MAGNITUDES = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))


@dataclass(frozen=True, slots=True)
class TimeReading:
    """How one column's times are read. expr: Int64 UTC milliseconds, null where it is no time. form: what is read."""

    expr: pl.Expr
    note: str
    form: str


def reading(raw: pl.LazyFrame, column: str, unit: TimeUnit, source: str) -> TimeReading:
    """Decide how to read a column. `auto` looks at the first 100,000 cells: the form most of them have, and the
    magnitude of their median. Text without a UTC offset, and naive datetimes, are taken as UTC.
    """
    dtype = raw.collect_schema()[column]
    cell = pl.col(column)
    if dtype.is_temporal() and dtype in (pl.Date, pl.Datetime):
        return TimeReading(cell.cast(pl.Datetime("ms")).dt.epoch("ms"), f"{column}: stored as {dtype}", str(dtype))
    if dtype != pl.String and not dtype.is_numeric():
        return TimeReading(pl.lit(None, pl.Int64), f"{column}: {dtype} is not a time", ANY_FORM)
    number = cell.str.strip_chars().cast(pl.Float64, strict=False) if dtype == pl.String else cell.cast(pl.Float64)
    if unit != "auto":
        return _read_as(unit, cell, number, dtype, f"{column}: read as {NAMES[unit]}, as configured")
    filled = raw.select(cell.alias("cell"), number.alias("number")).filter(pl.col("cell").is_not_null())
    sample = collected(filled.head(SAMPLE_CELLS), source)
    guessed = _guess(sample)
    if guessed is not None:
        return _read_as(guessed, cell, number, dtype, f"{column}: read as {NAMES[guessed]}, judged by its values")
    found = sample["cell"].head(1).cast(pl.String).to_list()
    note = f"{column}: no value is {ANY_FORM}" + "".join(f"; the first is '{value[:80]}'" for value in found)
    return TimeReading(pl.lit(None, pl.Int64), note, ANY_FORM)


def _read_as(unit: str, cell: pl.Expr, number: pl.Expr, dtype: pl.DataType, note: str) -> TimeReading:
    if unit != "iso":
        return TimeReading((number * PER_MS[unit]).round().cast(pl.Int64, strict=False), note, NAMES[unit])
    return TimeReading(_iso(cell) if dtype == pl.String else pl.lit(None, pl.Int64), note, NAMES[unit])


def _guess(sample: pl.DataFrame) -> str | None:
    """The unit that most of the sample's `cell` and `number` are in; None where not one is a time."""
    numbers = sample["number"].drop_nulls().drop_nans()
    if sample.schema["cell"] == pl.String and sample["cell"].str.contains(r"^\s*\d{4}-\d\d-\d\d").sum() > numbers.len():
        return "iso"
    if numbers.is_empty():
        return None
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
