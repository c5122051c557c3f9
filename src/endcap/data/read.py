"""One call from a file to a clean table, its quarantine and its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl

from endcap.core import tables
from endcap.core.section import Section
from endcap.data import importers as importers  # noqa: PLC0414 - registers its sources
from endcap.data.catalogue_checks import check_items, check_users
from endcap.data.checks import Checked, check_events
from endcap.data.clean import CleanConfig, clean_events
from endcap.data.hints import column_hints, column_notes
from endcap.data.lines import LINE
from endcap.data.quarantine import number_rows, quarantined
from endcap.data.report import (
    DataReport,
    catalogue_facts,
    catalogue_warnings,
    count_rules,
    event_facts,
    event_warnings,
    first_refused,
    table_warnings,
)
from endcap.data.sources import COLUMNS, SourceConfig, Table, name_columns, open_source


class DataConfig(Section):
    """How a shop's files are read and cleaned."""

    events: SourceConfig = SourceConfig()
    items: SourceConfig = SourceConfig()
    users: SourceConfig = SourceConfig()
    clean: CleanConfig = CleanConfig()


@dataclass(frozen=True, slots=True)
class ReadResult:
    """frame: conforms to the table's columns; of items and users it has those that the source gives. quarantine:
    conforms to `tables.QUARANTINE`. Together they are the rows read.
    """

    frame: pl.DataFrame
    quarantine: pl.DataFrame
    report: DataReport


def read_events(
    source: Path | pl.LazyFrame, config: DataConfig, *, items: pl.DataFrame | None = None, now_ms: int
) -> ReadResult:
    """Read, check and clean a file or table of events. items: the catalogue (`tables.ITEMS`), where there is one.

    A row is what the source's `scan` gives: an importer may make several of one line. now_ms: UTC milliseconds.
    Raises DataError where the file as a whole is no good; then nothing of it is returned.
    """
    scanned, name = _scan(source, config.events, "events")
    raw = number_rows(scanned)
    checked = check_events(raw, config.events, source=name, now_ms=now_ms)
    cleaned = clean_events(checked.frame, items, config.clean)
    late = quarantined(raw, cleaned.refused, "events", name)
    quarantine = pl.concat([checked.refused, late]).sort("line", maintain_order=True)
    frame = tables.conform(cleaned.frame, tables.EVENTS)
    facts = event_facts(frame)
    report = DataReport(
        source=name,
        table="events",
        rows_in=checked.rows_in,
        rows_out=frame.height,
        quarantined=count_rules(quarantine),
        examples=first_refused(quarantine),
        fills=checked.fills | cleaned.fills,
        clips=cleaned.clips,
        events=facts,
        catalogue=catalogue_facts(items) if items is not None else None,
        notes=(*checked.notes, *column_notes(checked.further, "events"), *cleaned.notes),
        warnings=(*_warnings(checked, "events", frame.height), *event_warnings(facts, now_ms)),
    )
    return ReadResult(frame, quarantine, report)


def read_items(source: Path | pl.LazyFrame, config: DataConfig) -> ReadResult:
    """Read and check a catalogue. Raises DataError where the file as a whole is no good."""
    raw, name = _scan(source, config.items, "items")
    checked = check_items(raw, config.items, source=name)
    facts = catalogue_facts(checked.frame)
    report = _report(checked, name, "items")
    report = msgspec.structs.replace(report, catalogue=facts, warnings=(*report.warnings, *catalogue_warnings(facts)))
    return ReadResult(checked.frame.select(checked.given), checked.refused, report)


def read_users(source: Path | pl.LazyFrame, config: DataConfig) -> ReadResult:
    """Read and check a table of shoppers. Raises DataError where the file as a whole is no good."""
    raw, name = _scan(source, config.users, "users")
    checked = check_users(raw, source=name)
    return ReadResult(checked.frame.select(checked.given), checked.refused, _report(checked, name, "users"))


def _scan(source: Path | pl.LazyFrame, config: SourceConfig, table: Table) -> tuple[pl.LazyFrame, str]:
    """Raw rows with `line`, and what to call where they came from. A table is renamed as a file's columns are."""
    if isinstance(source, Path):
        return open_source(source, config, table).scan(), str(source)
    numbered = source if LINE in source.collect_schema() else source.with_row_index(LINE, 1)
    return name_columns(numbered, config, table, Path("table")), f"table of {table}"


def _report(checked: Checked, name: str, table: Table) -> DataReport:
    return DataReport(
        source=name,
        table=table,
        rows_in=checked.rows_in,
        rows_out=checked.frame.height,
        quarantined=count_rules(checked.refused),
        examples=first_refused(checked.refused),
        fills=checked.fills,
        notes=(*checked.notes, *column_notes(checked.further, table)),
        warnings=tuple(_warnings(checked, table, checked.frame.height)),
    )


def _warnings(checked: Checked, table: Table, rows_out: int) -> list[str]:
    hints = column_hints(checked.further, checked.given, tables.names(COLUMNS[table]), table)
    return [*table_warnings(table, checked.rows_in, rows_out), *hints]
