"""What became of a file: how many rows, where they went, what was filled, and what is worth knowing of the rest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl

from endcap.core.errors import DataError, ServiceError
from endcap.core.types import EventType
from endcap.data.sources import Table

YEAR_MS = 365 * 24 * 3600 * 1000
FEW_USERS, FEW_EVENTS = 25, 1000
MUCH_REFUSED = 0.05
ALREADY_RECORDED = "already_recorded"


class Span(msgspec.Struct, frozen=True):
    """UTC milliseconds, both inclusive."""

    first_ms: int
    last_ms: int


class EventFacts(msgspec.Struct, frozen=True, kw_only=True):
    """sparsity: the share of user-item pairs without an event. median, p95: events per user."""

    span: Span | None
    users: int
    items: int
    by_type: dict[str, int]
    sparsity: float
    median_per_user: float
    p95_per_user: float


class CatalogueFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Items, and how many of them have each part."""

    items: int
    with_title: int
    with_price: int
    with_categories: int


class DataReport(msgspec.Struct, frozen=True, kw_only=True):
    """rows_in == rows_out + everything in `quarantined`; construction raises ServiceError if not.

    quarantined: rule -> rows. examples: rule -> the first row it refused, by line and reason. fills, clips: column ->
    cells. catalogue: of the file, in a report of items; of the store, in one of events. notes: how the file was read.
    warnings: sentences.
    """

    source: str
    table: str
    rows_in: int
    rows_out: int
    quarantined: dict[str, int]
    examples: dict[str, str] = {}
    fills: dict[str, int] = {}
    clips: dict[str, int] = {}
    events: EventFacts | None = None
    catalogue: CatalogueFacts | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refused = sum(self.quarantined.values())
        if self.rows_in != self.rows_out + refused:
            raise ServiceError(
                f"Rows do not add up: {self.rows_in} in, {self.rows_out} out, {refused} quarantined.",
                where=self.source,
                next_step="Nothing was ingested. Please report this with the file's kind and size.",
            )

    def failure(self, folder: Path) -> DataError | None:
        """What to raise where there were rows and not one was sound. folder: where refused rows are kept.

        Rows that the log holds already were sound.
        """
        if not self.rows_in or self.rows_out or ALREADY_RECORDED in self.quarantined:
            return None
        rule, count = max(self.quarantined.items(), key=lambda refused: refused[1])
        return DataError(
            f"Not one of {self.rows_in:,} rows could be used; the rule {rule} refused most of them ({count:,}).",
            where=self.source,
            next_step=f"All of them are in {folder}, with reasons. Mend the file or its mapping and ingest it again.",
        )

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    def lines(self) -> list[tuple[str, str]]:
        """(label, value) for a table on a console."""
        rows = [("source", self.source), ("rows in", f"{self.rows_in:,}"), ("rows out", f"{self.rows_out:,}")]
        for rule, count in self.quarantined.items():
            rows.append((f"quarantined: {rule}", f"{count:,}"))
            rows += [("  the first", self.examples[rule])] if rule in self.examples else []
        rows += [(f"filled: {column}", f"{count:,}") for column, count in self.fills.items()]
        rows += [(f"clipped: {column}", f"{count:,}") for column, count in self.clips.items()]
        rows += _event_lines(self.events) if self.events else []
        where = "file" if self.table == "items" else "catalogue"
        rows += _catalogue_lines(self.catalogue, where) if self.catalogue else []
        rows += [("note", note) for note in self.notes]
        return rows + [("warning", warning) for warning in self.warnings]


def count_rules(quarantine: pl.DataFrame) -> dict[str, int]:
    """rule -> rows, most first."""
    counted = quarantine.group_by("rule").len().sort(["len", "rule"], descending=[True, False])
    return dict(counted.iter_rows())


def first_refused(quarantine: pl.DataFrame) -> dict[str, str]:
    """rule -> the line and the reason of the first row it refused. quarantine: conforms to `tables.QUARANTINE`."""
    first = quarantine.unique("rule", keep="first", maintain_order=True)
    return {
        rule: reason if line is None else f"line {line}: {reason}"
        for rule, line, reason in first.select("rule", "line", "reason").iter_rows()
    }


def event_facts(frame: pl.DataFrame) -> EventFacts:
    """frame: conforms to `tables.EVENTS`."""
    per_user = frame.group_by("user_id").len()["len"]
    pairs = frame.lazy().filter(pl.col("item_id").is_not_null()).select("user_id", "item_id")
    pair = pl.struct("user_id", "item_id").hash()
    items, distinct = pairs.select(pl.col("item_id").n_unique(), pairs=pair.n_unique()).collect().row(0)
    first, last = frame["ts_ms"].min(), frame["ts_ms"].max()
    by_type = frame.group_by("event_type").len().sort("len", "event_type", descending=[True, False])
    return EventFacts(
        span=Span(first, last) if isinstance(first, int) and isinstance(last, int) else None,
        users=len(per_user),
        items=items,
        by_type=dict(by_type.iter_rows()),
        sparsity=1 - distinct / (len(per_user) * items) if items and len(per_user) else 1.0,
        median_per_user=_quantile(per_user, 0.5),
        p95_per_user=_quantile(per_user, 0.95),
    )


def catalogue_facts(items: pl.DataFrame) -> CatalogueFacts:
    """items: conforms to `tables.ITEMS`."""
    return CatalogueFacts(
        items=items.height,
        with_title=int((items["title"] != "").sum()),
        with_price=items.height - items["price"].null_count(),
        with_categories=int((items["categories"].list.len() > 0).sum()),
    )


def table_warnings(table: Table, rows_in: int, rows_out: int) -> list[str]:
    """What any table's owner should know."""
    if rows_in == 0:
        return [f"The file has a header and no rows: there are no {table}."]
    if rows_out == 0:
        return [f"Not one of {rows_in:,} rows could be used; see the rules above."]
    share = 1 - rows_out / rows_in
    return [f"{share:.0%} of the rows were quarantined; see the rules above."] if share > MUCH_REFUSED else []


def event_warnings(facts: EventFacts, now_ms: int) -> list[str]:
    """What whoever trains on these events should know. now_ms: UTC milliseconds."""
    if facts.span is None:
        return []
    total = sum(facts.by_type.values())
    types = list(facts.by_type)
    found = [
        (facts.span.last_ms < now_ms - YEAR_MS, "All events are older than a year."),
        (len(types) == 1, f"There is only one event type: {types[0]}."),
        (EventType.PURCHASE.value not in types, "There are no purchases: what sells cannot be learned."),
        (facts.span.first_ms == facts.span.last_ms, "All events carry the same time: order cannot be learned."),
        (facts.users < FEW_USERS, f"There are only {facts.users} users."),
        (total < FEW_EVENTS, f"There are only {total} events; popularity and content will decide most answers."),
        (facts.median_per_user <= 1, "Half of the users or more have a single event."),
    ]
    return [sentence for holds, sentence in found if holds]


def catalogue_warnings(facts: CatalogueFacts) -> list[str]:
    """What whoever trains on the items of this file should know."""
    if not facts.items:
        return []
    parts = {"title": facts.with_title, "price": facts.with_price, "categories": facts.with_categories}
    return [
        f"{facts.items - count:,} of {facts.items:,} items in the file have no {part}."
        for part, count in parts.items()
        if count < facts.items / 2
    ]


def _event_lines(facts: EventFacts) -> list[tuple[str, str]]:
    rows = [("users", f"{facts.users:,}"), ("items", f"{facts.items:,}")]
    if facts.span:
        times = pl.Series([facts.span.first_ms, facts.span.last_ms]).cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%d")
        rows.append(("from", str(times[0])))
        rows.append(("to", str(times[1])))
    rows += [(f"{kind} events", f"{count:,}") for kind, count in facts.by_type.items()]
    rows.append(("sparsity", f"{facts.sparsity:.4%}"))
    rows.append(("events per user", f"median {facts.median_per_user:g}, 95th percentile {facts.p95_per_user:g}"))
    return rows


def _catalogue_lines(facts: CatalogueFacts, where: str) -> list[tuple[str, str]]:
    parts = {"title": facts.with_title, "price": facts.with_price, "categories": facts.with_categories}
    of = max(facts.items, 1)
    rows = [(f"items in the {where}", f"{facts.items:,}")]
    return rows + [(f"items with {part}", f"{count:,} ({count / of:.0%})") for part, count in parts.items()]


def _quantile(counts: pl.Series, share: float) -> float:
    value = counts.quantile(share, "lower")
    return float(value) if value is not None else 0.0
