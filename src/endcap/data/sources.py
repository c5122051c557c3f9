"""Where rows come from: a reader per file format, chosen by file name, behind one registry.

A reader's `scan()` gives raw rows: our column names where the configuration maps them, the file's own names otherwise,
plus `line`. Text formats give text only (typing is the checks' work, so that a bad cell costs a row and not a file)
and, where lines could not be read as rows, the fault columns of `data.lines`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import polars as pl
from pydantic import Field

from endcap.core import tables
from endcap.core.errors import CallerError, DataError
from endcap.core.protocols import EventSource
from endcap.core.registry import Registry
from endcap.core.section import Section
from endcap.core.types import EventType
from endcap.data.csv_file import scan_csv
from endcap.data.lines import LINE, RESERVED, Fault, RawRows, TextLine, empty_file, free_name, require_file, text_lines

Table = Literal["events", "items", "users"]
TimeUnit = Literal["auto", "s", "ms", "us", "ns", "iso"]

COLUMNS: dict[Table, tuple[tables.Column, ...]] = {
    "events": tables.EVENTS,
    "items": tables.ITEMS,
    "users": tables.USERS,
}
PATH_MARK = " > "


class SourceConfig(Section):
    """How one file is to be read. Every field has a default that suits a file already in Endcap's own names."""

    format: str = Field(default="auto", description="A registered source; auto goes by the file's name.")
    columns: dict[str, str] = Field(
        default={},
        description="Our column -> the file's. For `categories` several columns may be joined: 'department > shelf'.",
    )
    event_types: dict[str, EventType] = Field(default={}, description="The file's event type -> ours.")
    default_event_type: EventType | None = Field(default=None, description="For rows that name no event type.")
    ts_unit: TimeUnit = Field(
        default="auto", description="Unit of times; auto decides by magnitude and form, and says so."
    )
    price_is_total: bool = Field(
        default=False, description="Event prices are for the whole line: divide by the quantity."
    )
    delimiter: str = Field(
        default=",", min_length=1, max_length=1, description="Between CSV fields; .tsv files use a tab."
    )
    max_line_bytes: int = Field(default=1 << 20, gt=0, description="Longer lines are quarantined.")
    currency: str | None = Field(default=None, description="ISO 4217, for rows that have a price and name no currency.")


SourceFactory = Callable[[Path, SourceConfig, Table], EventSource]
SOURCES: Registry[SourceFactory] = Registry("source", "endcap.sources")

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".csv.gz": "csv",
    ".tsv.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def open_source(path: Path, config: SourceConfig, table: Table) -> EventSource:
    """The reader for this file: by `config.format`, else by the file's name. Raises CallerError where neither helps."""
    require_file(path)
    if config.format != "auto":
        return SOURCES.get(config.format)(path, config, table)
    for suffix, name in SUFFIXES.items():
        if path.name.lower().endswith(suffix):
            return SOURCES.get(name)(path, config, table)
    raise CallerError(
        "The file's name does not say how to read it.",
        where=str(path),
        next_step=f"Known endings: {', '.join(SUFFIXES)}. Or set `format` to one of: {', '.join(SOURCES.names())}.",
    )


class CsvSource:
    """CSV or TSV, plain or gzipped."""

    def __init__(self, path: Path, config: SourceConfig, table: Table) -> None:
        self.path, self.config, self.table = path, config, table

    def scan(self) -> pl.LazyFrame:
        tabbed = self.path.name.lower().removesuffix(".gz").endswith(".tsv") and self.config.delimiter == ","
        raw = scan_csv(self.path, "\t" if tabbed else self.config.delimiter, self.config.max_line_bytes)
        return name_columns(raw, self.config, self.table, self.path)


class JsonLinesSource:
    """One JSON object a line, plain or gzipped. Nested values are kept as JSON text."""

    def __init__(self, path: Path, config: SourceConfig, table: Table) -> None:
        self.path, self.config, self.table = path, config, table

    def scan(self) -> pl.LazyFrame:
        rows = RawRows()
        for line in json_objects(self.path, self.config.max_line_bytes):
            if isinstance(line, Fault):
                rows.refuse(line)
            else:
                number, value = line
                if not RESERVED.isdisjoint(value):
                    value = {free_name(key): cell for key, cell in value.items()}
                # Most cells are text already; asking here saves a call for each.
                rows.add(
                    number, {key: (cell or None) if type(cell) is str else as_text(cell) for key, cell in value.items()}
                )
        return name_columns(rows.frame().lazy(), self.config, self.table, self.path)


class ParquetSource:
    """Parquet, with the types it has. `line` is the 1-based row number."""

    def __init__(self, path: Path, config: SourceConfig, table: Table) -> None:
        self.path, self.config, self.table = path, config, table

    def scan(self) -> pl.LazyFrame:
        try:
            raw = pl.scan_parquet(self.path, glob=False, hive_partitioning=False)
            found = raw.collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"The file is not readable Parquet: {error}.",
                where=str(self.path),
                next_step="Write or fetch it again; Parquet keeps its index at the end, so a part of a file is no use.",
            ) from error
        named = raw.rename({name: free_name(name) for name in found})
        return name_columns(named.with_row_index(LINE, 1), self.config, self.table, self.path)


def json_objects(path: Path, max_line_bytes: int) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
    """Each line's number and object; blank lines are skipped. Raises DataError for a file without a byte of content."""
    decoder = msgspec.json.Decoder()
    empty = True
    for line in text_lines(path, max_line_bytes):
        empty = False
        if isinstance(line, Fault):
            yield line
            continue
        if not line.text.strip():
            continue
        yield _object(line, decoder)
    if empty:
        raise empty_file(path)


def name_columns(raw: pl.LazyFrame, config: SourceConfig, table: Table, path: Path) -> pl.LazyFrame:
    """Give mapped columns our names. A column that stands in the way of one of ours is kept as `NAME (file)`.

    Raises DataError where the mapping names a column that the file lacks, CallerError where it names none of ours.
    """
    found = [name for name in raw.collect_schema().names() if name not in RESERVED]
    ours = tables.names(COLUMNS[table])
    unknown = sorted(set(config.columns) - set(ours))
    if unknown:
        raise CallerError(
            f"`columns` names {', '.join(unknown)}, which {table} do not have.",
            next_step=f"Columns of {table}: {', '.join(ours)}.",
        )
    picked = {our: _pick(our, theirs, found) for our, theirs in config.columns.items()}
    missing = [theirs for our, theirs in config.columns.items() if picked[our] is None]
    if missing:
        raise DataError(
            f"The file has no column {', '.join(map(repr, missing))}, which `columns` names.",
            where=str(path),
            next_step=f'Columns found: {", ".join(found) or "none"}. Correct `columns` (ours = "theirs").',
        )
    used = {name for names in picked.values() for name in names or []}
    kept = [name for name in found if name not in used]
    reserved = [name for name in raw.collect_schema().names() if name in RESERVED]
    return raw.select(
        *reserved,
        *(_joined(names).alias(our) for our, names in picked.items() if names),
        *(pl.col(name).alias(f"{name} (file)" if name in picked else name) for name in kept),
    )


def as_text(value: Any) -> str | None:
    """A JSON value as a cell: text as it is, null and "" as None, anything else as JSON."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _pick(our: str, theirs: str, found: list[str]) -> list[str] | None:
    if theirs in found:
        return [theirs]
    parts = theirs.split(PATH_MARK)
    return parts if our == "categories" and set(parts) <= set(found) else None


def _joined(names: list[str]) -> pl.Expr:
    if len(names) == 1:
        return pl.col(names[0])
    return pl.concat_str([pl.col(name).cast(pl.String) for name in names], separator=PATH_MARK, ignore_nulls=True)


def _object(line: TextLine, decoder: msgspec.json.Decoder[Any]) -> tuple[int, dict[str, Any]] | Fault:
    try:
        value = decoder.decode(line.text)
    except (msgspec.DecodeError, RecursionError) as error:
        return Fault(line.line, "malformed", f"The line is not JSON: {error}.", line.text)
    if not isinstance(value, dict):
        return Fault(line.line, "malformed", "The line is JSON, but not an object.", line.text)
    return line.line, cast(dict[str, Any], value)


SOURCES.add("csv", CsvSource)
SOURCES.add("jsonl", JsonLinesSource)
SOURCES.add("parquet", ParquetSource)
