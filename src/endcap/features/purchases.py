"""What a shopper's own orders say about each item they have bought: how often, how lately, in what rhythm, and with
what of the present cart.

Legend: q contexts, n candidates of all contexts end to end, m items bought (distinct for each context), e purchases.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Float32Array, Int64Array
from endcap.features.batch import Lists, Shoppers
from endcap.features.groups import find

DAY_MS = 86_400_000
HALF_LIVES_DAYS = (10.0, 30.0, 100.0)

NAMES = (
    "own_n",
    "own_share_of_rows",
    "own_rate",
    "own_rate_since_first",
    "own_days_since",
    "own_days_first",
    "own_gap_days",
    "own_last_gap_days",
    "own_due",
    "own_baskets_since",
    "own_decay_10d",
    "own_decay_30d",
    "own_decay_100d",
    "own_decay_8_baskets",
    "own_in_last_5",
    "own_in_last_15",
    "own_with_cart",
    "own_with_cart_n",
    "own_with_cart_share",
)
COUNTS = ("own_n", "own_share", "own_rate", "own_decay", "own_in", "own_with")
NEVER = np.array([0 if name.startswith(COUNTS) else np.nan for name in NAMES], np.float32)
N, SINCE, GAP, DUE = (NAMES.index(name) for name in ("own_n", "own_days_since", "own_gap_days", "own_due"))


def own_features(shoppers: Shoppers, candidates: Lists, usual_gap_days: Float32Array) -> Float32Array:
    """float32 [n, len(NAMES)] for candidates [n]. NaN where something never happened, 0 for counts.

    usual_gap_days: float32 [n], the mean time between two purchases of the candidate by anybody: the prior of
    `own_due`, days since the last purchase over the expected gap, which counts as 1.5 gaps seen.
    """
    bought = shoppers.bought.keys()
    rows = find(bought, candidates.keys())
    matrix = _table(shoppers, bought)[rows]
    there = (rows < len(bought)).nonzero()[0]
    seen = matrix[there, N] - 1
    gap = matrix[there, GAP]
    gap[np.isnan(gap)] = 0
    expected = (gap * seen + usual_gap_days[there] * 1.5) / (seen + 1.5)
    matrix[there, DUE] = matrix[there, SINCE] / np.maximum(expected, 0.5)
    return matrix


def _table(shoppers: Shoppers, bought: Int64Array) -> Float32Array:
    """float32 [m + 1, len(NAMES)]; the column `own_due` is left to the caller, the last row is for what was never
    bought. bought: int64 [m], the keys of the items bought."""
    rows, ts_ms, later, m = shoppers.bought.rows, shoppers.ts_ms, shoppers.later, len(bought)
    place = bought.searchsorted(shoppers.purchases.keys())
    first, before, last = _first_and_last(place, m)
    n = shoppers.bought_n.astype(np.float64)
    ages = np.maximum(shoppers.now_ms[shoppers.purchases.rows] - ts_ms, 0) / DAY_MS
    since = (shoppers.now_ms[rows] - ts_ms[last]) / DAY_MS
    age = (shoppers.now_ms[rows] - ts_ms[first]) / DAY_MS
    overlap, together = _with_cart(shoppers, bought, place, ages)
    columns = [
        n,
        n / shoppers.purchases.sizes[rows],
        n / shoppers.n_orders[rows],
        n / (later[first] + 3),
        since,
        age,
        np.where(n > 1, (age - since) / np.maximum(n - 1, 1), np.nan),
        np.where(before < last, (ts_ms[last] - ts_ms[before]) / DAY_MS, np.nan),
        np.full(m, np.nan),
        later[last],
        *(np.bincount(place, 0.5 ** (ages / half_life), m) for half_life in HALF_LIVES_DAYS),
        np.bincount(place, np.exp(-later / 8), m),
        np.bincount(place, later < 5, m),
        np.bincount(place, later < 15, m),
        overlap,
        together,
        together / n,
    ]
    table = np.empty((m + 1, len(NAMES)), np.float32)
    for number, column in enumerate(columns):
        table[:m, number] = column
    table[m] = NEVER
    return table


def _first_and_last(place: Int64Array, m: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """int64 [m] each: the first purchase of each item, the one before the last, and the last; the one before the last
    is the last itself where there is one only."""
    purchases = np.arange(len(place))
    first, last = np.empty(m, np.int64), np.empty(m, np.int64)
    first[place[::-1]] = purchases[::-1]  # of several writes to one place the last one stays
    last[place] = purchases
    earlier = np.ones(len(place), np.bool_)
    earlier[last] = False
    before = last.copy()
    before[place[earlier]] = purchases[earlier]
    return first, before, last


def _with_cart(
    shoppers: Shoppers, bought: Int64Array, place: Int64Array, ages: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each bought item: past orders weighted by their overlap with the cart (cosine, halved every 100 days), and
    how many of them share anything with it."""
    cart, orders, m = shoppers.cart, shoppers.orders, len(bought)
    if not len(cart.items):
        return np.zeros(m), np.zeros(m)
    in_cart = np.zeros(m + 1, np.bool_)
    in_cart[find(bought, cart.keys())] = True
    sizes = np.bincount(orders)
    shared = np.bincount(orders, in_cart[place], len(sizes))
    age = np.zeros(len(sizes))
    age[orders] = ages
    in_carts = np.repeat(np.maximum(cart.sizes, 1), shoppers.n_orders)
    weight = shared / np.sqrt(sizes * in_carts) * 0.5 ** (age / 100)
    overlap = np.bincount(place, weight[orders], m).astype(np.float64)
    together = np.bincount(place, (shared > 0)[orders], m).astype(np.float64)
    return overlap, together
