"""Typing of events: times in every form, event types, ids, the derived event_id."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from endcap.core.errors import DataError
from endcap.core.types import EventType
from endcap.data.checks import Checked, check_events
from endcap.data.sources import SourceConfig

NOW_MS = 1_750_000_000_000
T0 = 1_700_000_000_000  # 2023-11-14T22:13:20Z


def check(columns: dict[str, Any], **config: Any) -> Checked:
    raw = pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "event_type": ["view"], "ts_ms": [str(T0)]} | columns)
    return check_events(raw.lazy(), SourceConfig(**config), source="test", now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([str(T0 // 1000)], "seconds"),
        ([T0 // 1000], "seconds"),
        ([T0 / 1000], "seconds"),
        ([f" {T0} "], "milliseconds"),
        ([T0 * 1000], "microseconds"),
        ([T0 * 1_000_000], "nanoseconds"),
        (["2023-11-14T22:13:20Z"], "ISO 8601"),
        (["2023-11-14T22:13:20.000Z"], "ISO 8601"),
        (["2023-11-15T00:13:20+02:00"], "ISO 8601"),
        (["2023-11-15T00:13:20+0200"], "ISO 8601"),
        (["2023-11-14 22:13:20"], "ISO 8601"),
        ([datetime(2023, 11, 14, 22, 13, 20)], "Datetime"),
        ([datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)], "Datetime"),
    ],
)
def test_a_time_is_the_same_in_every_form_and_the_report_says_which(times: list[Any], said: str) -> None:
    checked = check({"ts_ms": times})
    assert checked.frame["ts_ms"].to_list() == [T0]
    assert said in checked.notes[0]


def test_dates_and_minutes_are_times() -> None:
    midnight = 1_699_920_000_000
    assert check({"ts_ms": ["2023-11-14"]}).frame["ts_ms"].item() == midnight
    assert check({"ts_ms": [date(2023, 11, 14)]}).frame["ts_ms"].item() == midnight
    assert check({"ts_ms": ["2023-11-14 22:13"]}).frame["ts_ms"].item() == T0 - 20_000


def test_the_form_most_rows_have_decides_and_the_others_are_refused() -> None:
    three = {"user_id": list("abc"), "item_id": list("xyz"), "event_type": ["view"] * 3}
    checked = check(three | {"ts_ms": ["1700000000", "1700000001", "2023-11-14"]})
    assert checked.frame["ts_ms"].to_list() == [T0, T0 + 1000]
    assert checked.refused.select("rule", "reason").row(0) == (
        "wrong_type",
        "The ts_ms '2023-11-14' is not a time; the column is read as seconds.",
    )


def test_no_unit_is_claimed_where_nothing_is_a_time() -> None:
    checked = check({"ts_ms": ["14/11/2023"]})
    form = "a number or ISO 8601 text, such as 2026-01-31T12:00:00Z"
    assert checked.notes == (f"ts_ms: no value is {form}; the first is '14/11/2023'",)
    assert checked.refused["reason"].item() == f"The ts_ms '14/11/2023' is not a time; the column is read as {form}."


def test_a_stated_unit_is_not_second_guessed() -> None:
    checked = check({"ts_ms": [str(T0 // 1000)]}, ts_unit="ms")
    assert checked.refused["rule"].to_list() == ["impossible_time"]


def test_the_limits_of_time_are_inclusive() -> None:
    day = 24 * 3600 * 1000
    edges = [788_918_400_000, NOW_MS + day, 788_918_399_999, NOW_MS + day + 1]
    four = {"user_id": list("abcd"), "item_id": list("abcd"), "event_type": ["view"] * 4}
    checked = check(four | {"ts_ms": edges}, ts_unit="ms")
    assert checked.frame["ts_ms"].to_list() == edges[:2]
    assert checked.refused["rule"].to_list() == ["impossible_time"] * 2


def test_event_types_are_mapped_or_our_own_in_any_case() -> None:
    kinds = ["pv", "View", "PURCHASE", "buy", " "]
    five = {"user_id": list("abcde"), "item_id": list("abcde"), "ts_ms": [T0] * 5}
    checked = check(five | {"event_type": kinds}, event_types={"pv": "view"}, default_event_type="rating")
    assert checked.frame["event_type"].to_list() == ["view", "view", "purchase", "rating"]
    assert checked.refused["reason"].to_list() == ["The event type 'buy' is not known; map it in `event_types`."]


def test_a_search_needs_no_item() -> None:
    two = {"user_id": ["u", "u"], "ts_ms": [T0, T0], "event_type": ["search", "view"], "item_id": [None, None]}
    checked = check(two)
    assert checked.frame["event_type"].to_list() == ["search"]
    assert checked.refused["rule"].to_list() == ["missing_id"]


def test_ids_that_pandas_made_floats_are_whole_again() -> None:
    checked = check({"item_id": [12.0], "user_id": [7], "quantity": [float("nan")]})
    assert checked.frame.select("item_id", "user_id").row(0) == ("12", "7")
    assert check({"item_id": [float("nan")]}).refused["rule"].to_list() == ["missing_id"]


def test_the_derived_id_is_the_content() -> None:
    checked = check({"quantity": ["2"], "price": ["1.50"], "user_id": ["a|b"]})
    assert checked.frame["event_id"].item() == f"a%7Cb|i|view|{T0}||2.0|1.5"
    assert checked.fills == {"event_id": 1}
    given = check({"event_id": ["mine"]})
    assert given.frame["event_id"].item() == "mine"
    assert given.fills == {}


def test_searches_differ_by_what_was_searched() -> None:
    two = {"user_id": ["u", "u"], "ts_ms": [T0, T0], "event_type": ["search"] * 2, "item_id": [None, None]}
    assert check(two | {"query": ["tea", "jam"]}).frame["event_id"].n_unique() == 2


def test_a_total_is_divided_by_the_quantity() -> None:
    columns = {"quantity": ["4"], "price": ["10"]}
    assert check(columns, price_is_total=True).frame["price"].item() == 2.5
    assert check(columns).frame["price"].item() == 10


def test_the_default_currency_goes_with_a_price_only() -> None:
    two = {"user_id": ["u", "v"], "item_id": ["i", "i"], "event_type": ["view"] * 2, "ts_ms": [T0] * 2}
    checked = check(two | {"price": ["1", None]}, currency="EUR")
    assert checked.frame["currency"].to_list() == ["EUR", None]
    assert checked.fills["currency"] == 1


def test_missing_columns_say_how_to_map_them() -> None:
    raw = pl.LazyFrame({"who": ["u"], "ts_ms": [T0]})
    with pytest.raises(DataError, match=r'Columns found: who, ts_ms\. Map them: columns = \{user_id = "THEIR NAME"\}'):
        check_events(raw, SourceConfig(), source="log.csv", now_ms=NOW_MS)
    with pytest.raises(DataError, match="Or set `default_event_type`"):
        check_events(raw.rename({"who": "user_id"}), SourceConfig(), source="log.csv", now_ms=NOW_MS)


def test_the_first_broken_rule_names_the_refusal() -> None:
    checked = check({"user_id": [None], "price": ["-1"], "quantity": ["0"]})
    assert checked.refused["rule"].to_list() == ["missing_id"]
    assert checked.rows_in == 1


def test_every_event_type_is_known() -> None:
    kinds = [kind.value for kind in EventType]
    many = dict.fromkeys(("user_id", "item_id", "session_id", "event_type"), kinds) | {"ts_ms": [T0] * len(kinds)}
    assert check(many).frame["event_type"].to_list() == kinds


def test_rows_without_a_shopper_are_the_session_s_and_logins_name_both():
    rows = {
        "user_id": [None, None, "u", "u", "session:s", "session:t"],
        "session_id": ["s", "s", "s", None, "s", "s"],
        "item_id": ["i", None, None, None, "i", "i"],
        "event_type": ["view", "login", "login", "login", "view", "view"],
        "ts_ms": [str(T0)] * 6,
    }
    checked = check(rows)
    assert checked.frame["user_id"].to_list() == ["session:s", "u", "session:s"]
    assert checked.refused["rule"].to_list() == ["missing_id", "missing_id", "reserved_user"]
