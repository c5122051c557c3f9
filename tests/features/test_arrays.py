import numpy as np
import polars as pl

from endcap.core.tables import EVENTS, ITEMS, conform
from endcap.core.types import Placement
from endcap.features.batch import Lists, Shoppers
from endcap.features.ids import UNKNOWN, Vocabulary, basket_key, key64, keys64
from endcap.features.items import ItemTable
from endcap.features.purchases import NAMES, own_features
from endcap.features.sequences import Histories
from endcap.features.state import context
from endcap.features.stats import ItemStats

DAY_MS = 86_400_000


def log(rows):
    """Rows (user, day, item, session) of purchases."""
    frame = pl.DataFrame(rows, schema=["user_id", "day", "item_id", "session_id"], orient="row")
    return conform(
        frame.with_columns(ts_ms=(pl.col("day") * DAY_MS).cast(pl.Int64), event_type=pl.lit("purchase")), EVENTS
    ).lazy()


def test_keys_are_stable_across_processes_and_versions():
    assert key64("endcap") == 9470457887575929185 == keys64(["a", "endcap"])[1]
    assert basket_key(None, 5) == basket_key("@5", 9) != basket_key("s", 5)


def test_vocabulary_leaves_unknown_ids_out(tmp_path):
    words = Vocabulary(["b", "a"])
    assert words.position("a") == 1
    assert words.position("x") == words.position(None) == UNKNOWN
    assert words.positions(["x", "a", "b"]).tolist() == [1, 0]
    words.save(tmp_path / "v.parquet")
    assert Vocabulary.load(tmp_path / "v.parquet").ids == ["b", "a"]


def test_histories_are_sorted_by_user_and_time_and_keep_the_logs_order_of_ties(tmp_path):
    frame = log([("u", 2, "a", "s"), ("t", 1, "b", "q"), ("u", 1, "c", "r"), ("u", 2, "b", "s"), ("u", 3, "zzz", "w")])
    built = Histories.build(frame, Vocabulary(["a", "b", "c"]))
    assert built.of("u").items.tolist() == [2, 0, 1]
    assert built.of("nobody").items.tolist() == []
    built.save(tmp_path)
    loaded = Histories.load(tmp_path)
    assert loaded.of("u").baskets.tolist() == built.of("u").baskets.tolist()
    cut = built.until(2 * DAY_MS)
    assert cut.of("u").items.tolist() == [2]
    assert cut.of("t").items.tolist() == [1]
    assert cut.users is built.users


def test_item_codes_number_whole_paths_and_missing_ones_are_unknown():
    frame = pl.DataFrame(
        {"item_id": ["x", "y", "z"], "categories": [["A", "B", "C"], ["D", "B", "C"], []], "title": ["Tea", "", None]}
    )
    table = ItemTable.build(conform(frame, ITEMS), ["only-in-events"])
    assert table.ids.ids == ["only-in-events", "x", "y", "z"]
    assert table.leaf[1] != table.leaf[2]
    assert table.leaf[[0, 3]].tolist() == [UNKNOWN, UNKNOWN]
    assert table.frame["availability"].to_list() == ["hidden", "in_stock", "in_stock", "in_stock"]
    assert ItemTable.build(conform(frame.clear(), ITEMS), ["x"]).frame["availability"].to_list() == ["in_stock"]
    assert table.titles() == ["only-in-events", "Tea", "y", "z"]
    assert table.texts()[1] == "Tea. A, B, C"


def test_texts_hold_the_fields_that_are_asked_for_and_pass_over_empty_ones():
    frame = pl.DataFrame(
        {
            "item_id": ["x", "y"],
            "title": ["Tea", ""],
            "brand": [None, "Leaf"],
            "categories": [["A", "B"], []],
            "description": ["Green.", "Black, loose"],
        }
    )
    table = ItemTable.build(conform(frame, ITEMS))
    assert table.texts() == ["Tea. A, B", ""]
    assert table.texts(("brand", "title", "description")) == ["Tea. Green", "Leaf. Black, loose"]


def test_item_stats_by_hand():
    frame = log(
        [("u", 0, "a", "1"), ("u", 10, "a", "2"), ("u", 30, "a", "3"), ("v", 30, "a", "4"), ("v", 30, "b", "4")]
    )
    stats = ItemStats.build(Histories.build(frame, Vocabulary(["a", "b", "c"])), 3, 40 * DAY_MS)
    np.testing.assert_allclose(np.expm1(stats.baskets), [4, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(np.expm1(stats.users), [2, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(stats.repeat, [0.5, 0, 0])
    np.testing.assert_allclose(stats.interval_days, [15, 365, 365])
    np.testing.assert_allclose(stats.quiet_days, [10, 10, 9999])


def test_own_features_by_hand():
    frame = log([("u", 0, "a", "1"), ("u", 10, "a", "2"), ("u", 10, "b", "2"), ("u", 30, "c", "3")])
    history = Histories.build(frame, Vocabulary(["a", "b", "c", "d"])).of("u")
    known = context(history, 40 * DAY_MS, Placement.CART, cart=np.array([1], np.int32))
    made = own_features(Shoppers.of([known]), Lists.of([np.array([0, 3], np.int32)]), np.array([10, 10], np.float32))
    bought, never = (dict(zip(NAMES, row.tolist(), strict=True)) for row in made)
    assert bought["own_n"] == 2
    assert bought["own_share_of_rows"] == 0.5
    assert np.isclose(bought["own_rate"], 2 / 3)
    assert np.isclose(bought["own_rate_since_first"], 2 / 5)
    assert (bought["own_days_since"], bought["own_days_first"], bought["own_gap_days"]) == (30, 40, 10)
    assert bought["own_last_gap_days"] == 10
    assert bought["own_due"] == 3
    assert bought["own_baskets_since"] == 1
    assert np.isclose(bought["own_decay_10d"], 0.5**4 + 0.5**3)
    assert (bought["own_with_cart_n"], bought["own_with_cart_share"]) == (1, 0.5)
    assert np.isclose(bought["own_with_cart"], 1 / np.sqrt(2) * 0.5**0.3)
    assert never["own_n"] == never["own_with_cart"] == 0
    assert np.isnan(never["own_days_since"])
