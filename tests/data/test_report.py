"""The report adds up or is not made, and its sentences follow from the data."""

from __future__ import annotations

import json

import polars as pl
import pytest

from endcap.core import tables
from endcap.core.errors import ServiceError
from endcap.data.report import (
    DataReport,
    catalogue_facts,
    catalogue_warnings,
    count_rules,
    event_facts,
    event_warnings,
    table_warnings,
)

T0 = 1_700_000_000_000
YEAR_MS = 365 * 24 * 3600 * 1000


def events(*rows: tuple[str, str, str, int]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "event_type", "ts_ms"], orient="row")
    return tables.conform(frame, tables.EVENTS)


def test_a_report_that_does_not_add_up_is_an_error_of_ours() -> None:
    with pytest.raises(ServiceError, match="5 in, 3 out, 1 quarantined"):
        DataReport(source="f", table="events", rows_in=5, rows_out=3, quarantined={"x": 1})


def test_facts_by_hand() -> None:
    rows = [("u", "a", "view", T0), ("u", "a", "view", T0 + 1), ("u", "b", "purchase", T0 + 5), ("v", "c", "view", T0)]
    facts = event_facts(events(*rows))
    assert facts.by_type == {"view": 3, "purchase": 1}
    assert (facts.users, facts.items, facts.median_per_user, facts.p95_per_user) == (2, 3, 1, 1)
    assert facts.sparsity == pytest.approx(1 - 3 / 6)
    assert facts.span is not None
    assert (facts.span.first_ms, facts.span.last_ms) == (T0, T0 + 5)


def test_warnings_say_what_is_lacking() -> None:
    old = event_warnings(event_facts(events(("u", "a", "view", T0))), T0 + YEAR_MS + 1)
    assert "All events are older than a year." in old
    assert "There is only one event type: view." in old
    assert "All events are older than a year." not in event_warnings(
        event_facts(events(("u", "a", "view", T0))), T0 + YEAR_MS
    )
    assert table_warnings("events", 100, 90) == ["10% of the rows were quarantined; see the rules above."]
    assert table_warnings("items", 9, 0) == ["Not one of 9 rows could be used; see the rules above."]
    assert table_warnings("items", 100, 100) == []


def test_coverage_of_the_catalogue() -> None:
    rows = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["x", "", ""], "price": [1.0, None, 2.0]})
    frame = tables.conform(rows.with_columns(categories=pl.lit(["s"])), tables.ITEMS)
    facts = catalogue_facts(frame)
    assert (facts.items, facts.with_title, facts.with_price, facts.with_categories) == (3, 1, 2, 3)
    assert catalogue_warnings(facts) == ["2 of 3 items have no title."]


def test_nothing_has_facts_too() -> None:
    facts = event_facts(tables.empty(tables.EVENTS))
    assert (facts.users, facts.span, facts.sparsity) == (0, None, 1.0)
    assert event_warnings(facts, T0) == []


def test_json_and_console_say_the_same() -> None:
    report = DataReport(
        source="log.csv",
        table="events",
        rows_in=1001,
        rows_out=1000,
        quarantined={"encoding": 1},
        events=event_facts(events(("u", "a", "view", T0))),
        warnings=("Mind this.",),
    )
    assert json.loads(report.to_json())["quarantined"] == {"encoding": 1}
    assert {
        ("rows in", "1,001"),
        ("quarantined: encoding", "1"),
        ("from", "2023-11-14"),
        ("warning", "Mind this."),
    } <= {*report.lines()}


def test_rules_are_counted_most_first() -> None:
    frame = pl.DataFrame({"rule": ["a", "b", "b", "c"]})
    assert list(count_rules(frame).items()) == [("b", 2), ("a", 1), ("c", 1)]
