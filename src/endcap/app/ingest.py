"""From files, tables or a named data set to the store: read, check, clean, record, quarantine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl

from endcap.core.errors import CallerError
from endcap.core.tables import QUARANTINE, conform
from endcap.data.datasets import Dataset
from endcap.data.read import DataConfig, ReadResult, read_events, read_items, read_users
from endcap.data.report import ALREADY_RECORDED, DataReport, count_rules
from endcap.data.store import Store

Progress = Callable[[str, float], None]
Table = str | Path | pl.DataFrame


def silent(stage: str, share: float) -> None:
    """The progress callback that shows nothing. stage: what is being done; share: 0 to 1."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of each table given. last_seq: the newest event in the log."""

    events: DataReport | None
    items: DataReport | None
    users: DataReport | None
    last_seq: int

    def reports(self) -> list[DataReport]:
        return [report for report in (self.items, self.users, self.events) if report is not None]


def ingest(
    store: Store,
    config: DataConfig,
    *,
    events: Table | Dataset | None,
    items: Table | None,
    users: Table | None,
    now_ms: int,
    progress: Progress = silent,
) -> Ingested:
    """Catalogue and users first, so that events can be checked against them. Safe to repeat: what is recorded
    already is refused as a duplicate. Raises DataError where a file as a whole is no good; then none of it is kept."""
    if isinstance(events, Dataset):
        items = events.items if items is None else items
        users = events.users if users is None else users
    if events is None and items is None and users is None:
        raise CallerError("There is nothing to ingest.", next_step="Name a file of events, items or users.")
    progress("catalogue", 0.0)
    item_report = None if items is None else _put(store, read_items(_input(items), config), store.put_items)
    user_report = None if users is None else _put(store, read_users(_input(users), config), store.put_users)
    progress("events: read, check, clean", 0.0)
    event_report = None
    if events is not None:
        catalogue = store.items()
        known = catalogue if catalogue.height else None
        source = events.events if isinstance(events, Dataset) else _input(events)
        event_report = _record(store, read_events(source, config, items=known, now_ms=now_ms), progress)
    progress("recorded", 1.0)
    return Ingested(event_report, item_report, user_report, store.last_seq())


def _input(table: Table) -> Path | pl.LazyFrame:
    return table.lazy() if isinstance(table, pl.DataFrame) else Path(table)


def _put(store: Store, result: ReadResult, put: Callable[[pl.DataFrame], int]) -> DataReport:
    put(result.frame)
    store.quarantine(result.quarantine)
    return result.report


def _record(store: Store, result: ReadResult, progress: Progress) -> DataReport:
    """Append; what the log holds already joins the quarantine, and the report says so."""
    progress("events: record", 0.5)
    appended = store.append_table(result.frame)
    refused = result.quarantine
    if appended.n_duplicates:
        refused = pl.concat([refused, _recorded_before(appended.duplicates, result.report.source)])
    store.quarantine(refused)
    return msgspec.structs.replace(result.report, rows_out=appended.n_accepted, quarantined=count_rules(refused))


def _recorded_before(duplicates: pl.DataFrame, source: str) -> pl.DataFrame:
    rows = duplicates.select(
        table=pl.lit("events"),
        rule=pl.lit(ALREADY_RECORDED),
        reason=pl.lit("An event with this id is in the log already."),
        source=pl.lit(source),
        line=pl.lit(None, pl.Int64),
        raw=pl.struct(pl.all()).struct.json_encode(),
    )
    return conform(rows, QUARANTINE)
