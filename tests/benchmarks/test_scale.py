"""The made-up shop has what it says, in any size, and the same again."""

import polars as pl
import pytest
from benchmarks.scale_data import DEPARTMENTS, MAKES, Size, made

SIZE = Size(items=3_000, users=2_000, events=30_000, qualifiers=2)


@pytest.fixture(scope="module")
def shop():
    return made(SIZE)


def test_sizes_are_as_asked(shop):
    events, items = shop
    assert items.height == items["item_id"].n_unique() == SIZE.items
    assert events["user_id"].n_unique() == SIZE.users
    assert SIZE.events <= events.height < 1.01 * SIZE.events
    assert events["event_id"].is_unique().all()
    assert events["ts_ms"].is_sorted()
    assert events.join(items, on="item_id", how="anti").is_empty()


def test_the_same_size_is_the_same_shop(shop):
    again = made(SIZE)
    assert all(one.equals(other) for one, other in zip(shop, again, strict=True))


def test_catalogue_has_three_levels_and_titles_that_repeat(shop):
    items = shop[1]
    assert (items["categories"].list.len() == 3).all()
    assert items["categories"].list.first().n_unique() == len(DEPARTMENTS)
    assert items["title"].n_unique() <= items["categories"].list.last().n_unique() * MAKES * 4
    named = items.select(pl.col("title").str.contains(pl.col("categories").list.last(), literal=True))
    assert named["title"].all()


def test_a_few_items_sell_most_and_shoppers_stay_with_their_taste(shop):
    events, items = shop
    counts = events["item_id"].value_counts(sort=True)["count"]
    assert counts.head(SIZE.items // 10).sum() > 0.3 * events.height
    lines = events.join(items.select("item_id", line=pl.col("categories").list.last()), on="item_id")
    most = pl.col("line").value_counts(sort=True).struct.field("count").first()
    assert lines.group_by("user_id").agg(share=most / pl.len())["share"].mean() > 0.4  # blindly, 1 in 288


def test_things_are_bought_again_and_orders_mostly_hold_one_item(shop):
    bought = shop[0].filter(event_type="purchase")
    assert 0.05 < 1 - bought.select("user_id", "item_id").n_unique() / bought.height < 0.5
    assert bought.height / bought["session_id"].n_unique() < 1.5
