"""Refused rows, kept as they came, with the rule that refused them and a sentence why."""

from __future__ import annotations

import polars as pl

from endcap.core import tables
from endcap.core.errors import DataError
from endcap.data.lines import FAULT_RAW, FAULTS, LINE, ROW
from endcap.data.sources import Table

RULE, REASON = "rule", "reason"
TYPED = "typed."


def number_rows(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Add `row`, by which a row is found again, and `line` where the source has none."""
    present = raw.collect_schema().names()
    numbered = raw if ROW in present else raw.with_row_index(ROW)
    return numbered if LINE in present else numbered.with_columns(pl.lit(None, pl.Int64).alias(LINE))


def collected(rows: pl.LazyFrame, source: str) -> pl.DataFrame:
    """Read the rows. Raises DataError where the file turns out to be damaged further in."""
    try:
        return rows.collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(
            f"Reading stopped: {error}.", where=source, next_step="Write or fetch the file again; nothing was ingested."
        ) from error


def as_it_came(raw: pl.LazyFrame) -> pl.Expr:
    """A row of `raw` as a JSON object, or the text of a line that could not be read as one."""
    schema = raw.collect_schema()
    cells = [_plain(name, dtype) for name, dtype in schema.items() if _is_raw(name)]
    text = pl.struct(cells).struct.json_encode() if cells else pl.lit("{}")
    return pl.coalesce(FAULT_RAW, text) if FAULT_RAW in schema else text


def quarantined(raw: pl.LazyFrame, refused: pl.DataFrame, table: Table, source: str) -> pl.DataFrame:
    """Rows conforming to `tables.QUARANTINE`, in the order of the file.

    refused: `row`, `rule` and `reason` of rows of `raw` (which carries `row` too).
    """
    if refused.is_empty():
        return tables.empty(tables.QUARANTINE)
    wanted = refused.select(pl.col(ROW).cast(raw.collect_schema()[ROW]), RULE, REASON)
    found = raw.join(wanted.lazy(), on=ROW, how="inner").sort(ROW)
    rows = collected(found.select(LINE, RULE, REASON, as_it_came(raw).alias("raw")), source)
    return labelled(rows, table, source)


def labelled(refused: pl.DataFrame, table: Table, source: str) -> pl.DataFrame:
    """Add the table's and the source's name to `line`, `rule`, `reason`, `raw`."""
    return tables.conform(refused.with_columns(table=pl.lit(table), source=pl.lit(source)), tables.QUARANTINE)


def _is_raw(name: str) -> bool:
    return name not in (ROW, LINE, *FAULTS) and not name.startswith(TYPED)


def _plain(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_nested() or dtype.is_integer() or dtype.is_float() or dtype in (pl.String, pl.Boolean):
        return pl.col(name)
    if dtype == pl.Binary:
        return pl.col(name).bin.encode("hex")
    return pl.col(name).cast(pl.String)
