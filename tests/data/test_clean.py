"""Cleaning rules, each on a log small enough to judge by hand."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from endcap.core import tables
from endcap.data.clean import RULES, CleanConfig, Cleaned, clean_events
from endcap.data.outliers import MIN_ROWS, price_bounds

T0 = 1_700_000_000_000


def log(*rows: dict[str, Any]) -> pl.DataFrame:
    base = {"event_type": "view", "user_id": "u", "item_id": "i", "ts_ms": T0}
    whole = [{"event_id": f"e{at}", **base, **row} for at, row in enumerate(rows)]
    return tables.conform(pl.DataFrame(whole, infer_schema_length=None), tables.EVENTS)


def clean(frame: pl.DataFrame, items: pl.DataFrame | None = None, **config: Any) -> Cleaned:
    cleaned = clean_events(frame, items, CleanConfig(**config))
    assert cleaned.frame.height + cleaned.refused.height == frame.height
    assert cleaned.frame.columns == frame.columns
    return cleaned


def catalogue(**prices: float | None) -> pl.DataFrame:
    rows = [{"item_id": name, "price": price, "categories": ["shop", "shelf"]} for name, price in prices.items()]
    return tables.conform(pl.DataFrame(rows, infer_schema_length=None), tables.ITEMS)


def refused(cleaned: Cleaned) -> list[tuple[str, str]]:
    return cleaned.refused.select("event_id", "rule").rows()


def test_the_same_event_twice_is_one() -> None:
    cleaned = clean(log({"event_id": "a"}, {"event_id": "a", "price": 2.0}, {"event_id": "b", "item_id": "j"}))
    assert cleaned.frame["price"].to_list() == [None, None]
    assert refused(cleaned) == [("a", "exact_duplicate")]


def test_the_same_content_under_another_id_is_one_except_in_a_basket() -> None:
    share = {"event_type": "share", "session_id": "s"}
    line = {"event_type": "purchase", "session_id": "s", "quantity": 1.0, "price": 2.0}
    cleaned = clean(log(share, share, line, line))
    assert refused(cleaned) == [("e1", "exact_duplicate")]
    assert cleaned.frame["event_id"].to_list() == ["e0", "e2", "e3"]


def test_a_double_click_is_one_click() -> None:
    cleaned = clean(log(*({"event_type": "click", "ts_ms": T0 + ms} for ms in (0, 2000, 4001, 9000))))
    assert refused(cleaned) == [("e1", "near_duplicate")]


def test_near_duplicates_need_the_same_user_item_type_and_shelf() -> None:
    shown = {"event_type": "impression", "recommendation_id": "r", "placement": "home"}
    rows = [{}, {"user_id": "v"}, {"item_id": "j"}, {"event_type": "click"}]
    shelves = [shown, shown | {"placement": "cart"}, shown | {"recommendation_id": "q"}, {"event_type": "rating"}]
    spread = [row | {"ts_ms": T0 + at} for at, row in enumerate(rows + shelves)]
    assert clean(log(*spread)).refused.is_empty()


@pytest.mark.parametrize(
    ("change", "doubled"),
    [
        ({"ts_ms": T0 + 500}, True),
        ({}, False),
        ({"ts_ms": T0 + 500, "quantity": 2.0}, False),
        ({"ts_ms": T0 + 500, "price": 3.0}, False),
        ({"ts_ms": T0 + 500, "session_id": "other"}, False),
        ({"ts_ms": T0 + 5000}, False),
    ],
)
def test_an_order_sent_twice_is_one_and_a_basket_line_twice_is_two(change: dict[str, Any], doubled: bool) -> None:
    line = {"event_type": "purchase", "session_id": "s", "quantity": 1.0, "price": 2.0}
    assert refused(clean(log(line, line | change))) == ([("e1", "near_duplicate")] if doubled else [])


def test_purchases_without_an_order_are_never_near_duplicates() -> None:
    line = {"event_type": "purchase", "quantity": 1.0, "price": 2.0}
    assert clean(log(line, line | {"ts_ms": T0 + 500})).refused.is_empty()


def test_unknown_items_go_by_policy_and_searches_stay() -> None:
    frame = log({"item_id": "known"}, {"item_id": "gone"}, {"event_type": "search", "item_id": None})
    assert refused(clean(frame, catalogue(known=1.0))) == [("e1", "unknown_item")]
    kept = clean(frame, catalogue(known=1.0), unknown_item="keep")
    assert (kept.refused.height, kept.counts["unknown_item"]) == (0, 1)
    assert clean(frame).counts["unknown_item"] == 0


def test_missing_prices_come_from_the_items_own_sales_then_the_catalogue() -> None:
    sale = {"event_type": "purchase", "quantity": 1.0}
    frame = log(
        *(sale | {"item_id": "a", "price": price, "session_id": str(price)} for price in (1.0, 2.0, 9.0)),
        *(sale | {"item_id": item} for item in "abc"),
        {"item_id": "a"},
    )
    cleaned = clean(frame, catalogue(a=5.0, b=7.0, c=None))
    assert cleaned.frame["price"].to_list() == [1.0, 2.0, 9.0, 2.0, 7.0, None, None]
    assert cleaned.fills == {"price": 2}
    assert "1 purchases or cart additions have no price" in cleaned.notes[0]


def test_a_missing_quantity_is_one_where_there_is_one_at_all() -> None:
    cleaned = clean(log({"event_type": "add_to_cart", "price": 1.0}, {"ts_ms": T0 + 9000}))
    assert cleaned.frame["quantity"].to_list() == [1.0, None]
    assert cleaned.fills == {"quantity": 1}


def sales(prices: list[float], quantities: list[float] | None = None) -> pl.DataFrame:
    amounts = quantities or [1.0] * len(prices)
    rows = zip(prices, amounts, strict=True)
    return log(
        *(
            {"event_type": "purchase", "session_id": str(at), "ts_ms": T0 + at * 60_000, "price": p, "quantity": q}
            for at, (p, q) in enumerate(rows)
        )
    )


def test_a_slipped_decimal_point_is_clipped_to_the_bound() -> None:
    # All prices alike: the spread is the floor, .25, so the bounds are 10 x e^(±8 x .25).
    cleaned = clean(sales([10.0] * 20 + [1000.0, 0.1, 70.0, 0.0]), catalogue(i=10.0))
    assert cleaned.frame["price"][20] == pytest.approx(10 * math.e**2)
    assert cleaned.frame["price"][21] == pytest.approx(10 / math.e**2)
    assert cleaned.frame["price"].to_list()[22:] == [70.0, 0.0]
    assert cleaned.clips == {"price": 2}


def test_outliers_may_be_quarantined_or_kept() -> None:
    frame = sales([10.0] * 20 + [1000.0])
    assert refused(clean(frame, outliers="quarantine")) == [("e20", "price_outlier")]
    kept = clean(frame, outliers="keep")
    assert (kept.frame["price"][20], kept.counts["price_outlier"], kept.clips) == (1000.0, 1, {})


def test_a_quantity_is_clipped_to_whole_units_and_upwards_only() -> None:
    # e^(8 x .5) = 54.598; goods by weight may be tiny.
    cleaned = clean(sales([1.0] * 23, [1.0] * 20 + [9999.0, 50.0, 0.001]))
    assert cleaned.frame["quantity"].to_list()[20:] == [54.0, 50.0, 0.001]
    assert cleaned.clips == {"quantity": 1}


def test_a_part_of_a_unit_beyond_the_bound_is_clipped_too() -> None:
    # e^4 is 54.6, in whole units 54: 54.3 lies between.
    cleaned = clean(sales([1.0] * 21, [1.0] * 20 + [54.3]))
    assert cleaned.frame["quantity"].to_list()[20] == 54.0
    assert cleaned.clips == {"quantity": 1}


def test_the_bounds_follow_the_leaf_category() -> None:
    # log prices 0, ±1: median 0, MAD 1, so low and high are e^(∓8 x 1.4826).
    third = MIN_ROWS // 3 + 1
    frame = sales([*(math.exp(x) for x in (-1.0, 0.0, 1.0) for _ in range(third)), math.exp(30.0)])
    frame = frame.with_columns(item_id=pl.Series([f"i{at % 5}" for at in range(frame.height)]))
    bounds = price_bounds(frame, catalogue(**{f"i{at}": 1.0 for at in range(5)}), z=8)
    assert bounds.high[0] == pytest.approx(math.exp(8 * 1.4826))
    assert bounds.low[0] == pytest.approx(math.exp(-8 * 1.4826))
    assert price_bounds(frame, None, z=8).high.is_null().all()


def test_a_user_faster_than_people_is_a_bot_and_loses_that_type_only() -> None:
    fast = [{"user_id": "bot", "item_id": f"i{n}", "ts_ms": T0 - T0 % 60_000 + n * 100} for n in range(11)]
    bought = {"user_id": "bot", "event_type": "purchase", "quantity": 1.0, "price": 1.0}
    cleaned = clean(log(*fast, bought, {"user_id": "human"}), bot_events_per_minute=10)
    assert cleaned.counts["bots"] == 11
    assert cleaned.frame["user_id"].to_list() == ["bot", "human"]


def test_a_user_who_never_sleeps_is_a_bot() -> None:
    day = T0 - T0 % 86_400_000
    rows = [{"item_id": f"i{n}", "ts_ms": day + n * 60_000} for n in range(21)]
    assert clean(log(*rows), bot_events_per_day=20).counts["bots"] == 21
    assert clean(log(*rows), bot_events_per_day=21).counts["bots"] == 0


def test_a_big_basket_is_no_bot() -> None:
    line = {"event_type": "purchase", "quantity": 1.0, "price": 1.0}
    basket = [line | {"item_id": f"i{n}", "session_id": "s", "ts_ms": T0 + n} for n in range(50)]
    loose = [line | {"item_id": f"i{n}", "user_id": "v", "ts_ms": T0 + n} for n in range(50)]
    page = [{"event_type": "impression", "item_id": f"i{n}"} for n in range(50)]
    assert clean(log(*basket, *loose, *page), bot_events_per_minute=10).refused.is_empty()


def test_many_orders_in_a_minute_are_a_bots() -> None:
    line = {"event_type": "purchase", "quantity": 1.0, "price": 1.0, "ts_ms": T0}
    cleaned = clean(log(*(line | {"session_id": f"s{n}"} for n in range(11))), bot_events_per_minute=10)
    assert cleaned.counts["bots"] == 11


def test_a_rule_to_leave_out_must_be_one() -> None:
    with pytest.raises(ValidationError, match=r"\['foo'\] are no rules of cleaning; there are: exact_duplicate, bots"):
        CleanConfig(skip=("bots", "foo"))


def test_rules_can_be_left_out_and_run_on_nothing() -> None:
    twice = log({"event_id": "a"}, {"event_id": "a"})
    assert clean(twice, skip=("exact_duplicate", "near_duplicate")).refused.is_empty()
    empty = clean(tables.empty(tables.EVENTS), catalogue(a=1.0))
    assert empty.counts == dict.fromkeys(RULES, 0)
