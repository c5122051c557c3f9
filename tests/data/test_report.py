"""The report adds up or is not made, and its sentences follow from the data."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from endcap.core import tables
from endcap.core.errors import DataError, ServiceError
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
    assert catalogue_warnings(facts) == ["2 of 3 items in the file have no title."]


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


def test_a_file_without_one_sound_row_is_a_failure_unless_it_was_recorded_before() -> None:
    def failure(rows_out: int, **quarantined: int) -> DataError | None:
        rows_in = rows_out + sum(quarantined.values())
        report = DataReport(source="f", table="events", rows_in=rows_in, rows_out=rows_out, quarantined=quarantined)
        return report.failure(Path("shop", "quarantine"))

    refused = failure(0, missing_id=1, wrong_type=2)
    assert refused is not None
    assert "Not one of 3 rows could be used; the rule wrong_type refused most of them (2)." in str(refused)
    assert str(Path("shop", "quarantine")) in refused.next_step
    assert failure(1, wrong_type=2) is None
    assert failure(0, wrong_type=1, already_recorded=2) is None
    assert failure(0) is None


def test_each_rule_shows_the_first_row_it_refused() -> None:
    rows = [("a", "One.", 2), ("b", "Two.", None), ("a", "Three.", 4)]
    first = first_refused(pl.DataFrame(rows, schema=["rule", "reason", "line"], orient="row"))
    assert first == {"a": "line 2: One.", "b": "Two."}
    report = DataReport(source="f", table="items", rows_in=3, rows_out=0, quarantined={"a": 2, "b": 1}, examples=first)
    assert report.lines()[3:5] == [("quarantined: a", "2"), ("  the first", "line 2: One.")]


def test_rules_are_counted_most_first() -> None:
    frame = pl.DataFrame({"rule": ["a", "b", "b", "c"]})
    assert list(count_rules(frame).items()) == [("b", 2), ("a", 1), ("c", 1)]
