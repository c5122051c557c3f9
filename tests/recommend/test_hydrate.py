"""The feature matrix: by hand for one shopper, and the same for many at once as for each alone."""

import numpy as np
import polars as pl
import pytest

from endcap.core.tables import EVENTS, ITEMS, conform
from endcap.core.types import Candidates, EventType, Placement
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories, History
from endcap.features.state import context
from endcap.features.stats import ItemStats
from endcap.recommend.candidates import joined
from endcap.recommend.hydrate import Hydrator
from endcap.testing.contexts import DAY_MS, NOW_MS, a_context

SOURCES = ("first", "second")
KINDS = ("purchase", "view", "click", "add_to_cart", "remove_from_cart", "rating")
PER_SOURCE = 20


def make_hydrator(catalogue, events):
    """catalogue: rows (categories, brand, price). events: rows (user, days ago, item) of purchases."""
    ids = [f"i{place:03d}" for place in range(len(catalogue))]
    table = ItemTable.build(
        conform(
            pl.DataFrame(
                {
                    "item_id": ids,
                    "categories": [row[0] for row in catalogue],
                    "brand": [row[1] for row in catalogue],
                    "price": [row[2] for row in catalogue],
                },
                schema={
                    "item_id": pl.String,
                    "categories": pl.List(pl.String),
                    "brand": pl.String,
                    "price": pl.Float64,
                },
            ),
            ITEMS,
        )
    )
    log = pl.DataFrame(
        {
            "user_id": [row[0] for row in events],
            "item_id": [ids[row[2]] for row in events],
            "ts_ms": [NOW_MS - DAY_MS * row[1] for row in events],
            "event_type": ["purchase"] * len(events),
        },
        schema={"user_id": pl.String, "item_id": pl.String, "ts_ms": pl.Int64, "event_type": pl.String},
    )
    stats = ItemStats.build(Histories.build(conform(log, EVENTS).lazy(), table.ids), len(table), NOW_MS)
    return Hydrator(table, stats, SOURCES)


def a_shop(draw, n):
    """n items, of which some lack a part of the path, the brand or the price, and what has been sold of them."""
    catalogue = [
        (
            [f"{level}{draw.integers(3)}" for level in "abc"][: draw.integers(4)],
            None if draw.random() < 0.3 else f"brand{draw.integers(5)}",
            None if draw.random() < 0.3 else float(draw.integers(1, 50)),
        )
        for _ in range(n)
    ]
    events = [(f"u{draw.integers(20)}", int(draw.integers(300)), int(draw.integers(n))) for _ in range(6 * n)]
    return make_hydrator(catalogue, events)


def a_shopper(draw, n):
    """A random history with ties in time and sessions that overlap, a cart of its own or of the request, an anchor."""
    e = int(draw.choice([0, 1, 4, 30, 200]))
    ts_ms = NOW_MS - np.sort(draw.integers(0, 200, e))[::-1] * (DAY_MS // 2)
    bought = draw.random(e) < draw.choice([0.0, 0.5, 1.0])
    kinds = [KINDS[0] if buys else KINDS[draw.integers(1, len(KINDS))] for buys in bought]
    history = History(
        draw.integers(0, n, e).astype(np.int32),
        np.array([EventType(kind).code for kind in kinds], np.int8),
        ts_ms,
        (ts_ms // (5 * DAY_MS) + draw.integers(0, 2, e)).astype(np.uint64),
    )
    return context(
        history,
        NOW_MS + int(draw.integers(DAY_MS)),
        list(Placement)[draw.integers(len(Placement))],
        cart=None if draw.random() < 0.5 else draw.permutation(n)[: draw.integers(5)].astype(np.int32),
        anchor=int(draw.integers(-1, n)),
    )


def proposals(draw, n, size):
    items = np.sort(draw.permutation(n)[:size]).astype(np.int32)
    scores = draw.standard_normal((size, len(SOURCES))).astype(np.float32)
    ranks = draw.integers(0, PER_SOURCE + 1, (size, len(SOURCES))).astype(np.float32)
    return Candidates.of(items, scores, ranks, PER_SOURCE)


def bits(matrix):
    return matrix.view(np.uint32)


@pytest.mark.parametrize("seed", range(6))
def test_many_shoppers_at_once_equal_each_alone_bit_for_bit(seed):
    draw, n = np.random.default_rng(seed), 60
    hydrator = a_shop(draw, n)
    contexts = [a_context(), *(a_shopper(draw, n) for _ in range(30)), a_context([3, 3, 5], cart=[5]), a_context()]
    candidates = [proposals(draw, n, int(draw.choice([0, 1, 10, 40]))) for _ in contexts]
    candidates[0], candidates[-1] = proposals(draw, n, 40), proposals(draw, n, 0)
    together = hydrator.features(joined(candidates), contexts)
    alone = [hydrator.features(part, [shopper]) for part, shopper in zip(candidates, contexts, strict=True)]
    assert together.dtype == np.float32
    np.testing.assert_array_equal(bits(together), bits(np.concatenate(alone)))
    assert not np.isinf(together).any()


def test_no_candidates_have_no_features():
    draw = np.random.default_rng(0)
    hydrator = a_shop(draw, 12)
    nothing = [proposals(draw, 12, 0), proposals(draw, 12, 0)]
    assert hydrator.features(joined(nothing), [a_context([1]), a_context()]).shape == (0, len(hydrator.names))


def test_candidates_of_other_sources_are_refused():
    draw = np.random.default_rng(0)
    hydrator, part = a_shop(draw, 12), proposals(draw, 12, 3)
    fewer = Candidates.of(part.items, part.scores[:, :1], part.ranks[:, :1], PER_SOURCE)
    with pytest.raises(ValueError, match="columns"):
        hydrator.features(fewer, [a_context([1])])


def test_candidates_of_more_or_fewer_contexts_are_refused():
    draw = np.random.default_rng(0)
    hydrator, part = a_shop(draw, 12), proposals(draw, 12, 3)
    for contexts in ([], [a_context(), a_context()]):
        with pytest.raises(ValueError, match="contexts"):
            hydrator.features(part, contexts)


def test_features_by_hand():
    tea, milk = ["drinks", "tea"], ["drinks", "milk"]
    hydrator = make_hydrator(
        [(tea, "X", 10.0), (tea, "Y", 20.0), (milk, "X", None), ([], None, 5.0), ([], None, None)], [("u", 9, 0)]
    )
    shopper = a_context([0, 0, 1, 3, 0], viewed=[2], cart=[1, 3], placement=Placement.CART)
    scores, ranks = np.zeros((4, 2), np.float32), np.array([[0, 20], [1, 0], [20, 20], [20, 1]], np.float32)
    scores[:, 0] = [1, 4, -2, 0]
    candidates = Candidates.of(np.array([0, 1, 2, 4], np.int32), scores, ranks, PER_SOURCE)
    matrix = hydrator.features(candidates, [shopper])
    column = dict(zip(hydrator.names, matrix.T.tolist(), strict=True))
    nan = np.nan
    expected = {
        "share_first": [0.25, 1, -0.5, 0],
        "share_second": [0, 0, 0, 0],
        "proposed_by": [1, 2, 0, 1],
        "own_n": [3, 1, 0, 0],
        "own_last_gap_days": [3, nan, nan, nan],
        "leaf_n": [4, 4, 0, 0],
        "leaf_share": [0.8, 0.8, 0, 0],
        "leaf_days_since": [1, 1, nan, nan],
        "leaf_days_first": [5, 5, nan, nan],
        "leaf_due": [0.75, 0.75, nan, nan],
        "top_n": [4, 4, 4, 0],
        "brand_n": [3, 1, 3, 0],
        "line_n": [3, 1, 0, 0],
        "share_of_leaf": [0.75, 0.25, 0, 0],
        "leaf_variety": [2, 2, 0, 0],
        "in_cart_leaf": [1, 1, 0, 0],
        "in_cart_brand": [0, 1, 0, 0],
        "in_session_leaf": [0, 0, 1, 0],
        "in_session_brand": [1, 0, 1, 0],
        "price_gap": np.log([10, 20, nan, nan]) - np.log([10, 10, 20, 5, 10]).mean(),
        "user_baskets": [5] * 4,
        "user_basket_size": [1] * 4,
        "user_days_since": [1] * 4,
        "user_repeat_share": [0.4] * 4,
        "user_pace_days": [1] * 4,
        "cart_size": [2] * 4,
        "placement": [list(Placement).index(Placement.CART)] * 4,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(column[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_of_a_stranger_only_counts_are_known():
    draw = np.random.default_rng(1)
    hydrator = a_shop(draw, 12)
    column = dict(zip(hydrator.names, hydrator.features(proposals(draw, 12, 5), [a_context()]).T, strict=True))
    for name in ("own_n", "leaf_n", "leaf_variety", "in_cart_leaf", "in_session_brand", "user_baskets", "cart_size"):
        assert (column[name] == 0).all(), name
    for name in ("own_days_since", "leaf_share", "brand_due", "price_gap", "user_basket_size", "user_pace_days"):
        assert np.isnan(column[name]).all(), name
