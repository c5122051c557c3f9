"""What a shopper's own orders say about each item they have bought: how often, how lately, in what rhythm, and with
what of the present cart.

Legend: m distinct items bought, e purchase events, b baskets (an ordinal from 0, the oldest).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Context, EventType, Float32Array, Int32Array

DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code
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


def own_features(context: Context, items: Int32Array, usual_gap_days: Float32Array) -> Float32Array:
    """float32 [n, len(NAMES)] for candidates int32 [n]. NaN where something never happened, 0 for counts.

    usual_gap_days: float32 [n], the mean time between two purchases of the candidate by anybody: the prior of
    `own_due`, days since the last purchase over the expected gap, which counts as 1.5 gaps seen.
    """
    matrix = np.full((len(items), len(NAMES)), np.nan, np.float32)
    counts = [place for place, name in enumerate(NAMES) if name in COUNTS]
    matrix[:, counts] = 0
    if not len(context.bought):
        return matrix
    rows = np.minimum(np.searchsorted(context.bought, items), len(context.bought) - 1)
    there = context.bought[rows] == items
    table = _table(context)
    known = table[rows[there]]
    due = NAMES.index("own_due")
    seen = known[:, NAMES.index("own_n")] - 1
    gap = np.nan_to_num(known[:, NAMES.index("own_gap_days")])
    expected = (gap * seen + usual_gap_days[there] * 1.5) / (seen + 1.5)
    known[:, due] = known[:, NAMES.index("own_days_since")] / np.maximum(expected, 0.5)
    matrix[there] = known
    return matrix


COUNTS = frozenset(
    name for name in NAMES if name.startswith(("own_n", "own_share", "own_rate", "own_decay", "own_in", "own_with"))
)


def _table(context: Context) -> Float32Array:
    """float32 [m, len(NAMES)]; the column `own_due` is left to the caller."""
    bought = context.kinds == PURCHASE
    ts_ms, baskets = context.ts_ms[bought], context.baskets[bought]
    place = np.searchsorted(context.bought, context.items[bought])
    ordinal = np.concatenate([[0], np.cumsum(baskets[1:] != baskets[:-1])])
    total, m = int(ordinal[-1]) + 1, len(context.bought)
    n = context.bought_n.astype(np.float64)
    ages = np.maximum(context.now_ms - ts_ms, 0) / DAY_MS
    recency = total - 1 - ordinal
    first, last = np.full(m, total), np.zeros(m, np.int64)
    np.minimum.at(first, place, ordinal)
    np.maximum.at(last, place, ordinal)
    since = (context.now_ms - context.bought_last_ms) / DAY_MS
    age = (context.now_ms - context.bought_first_ms) / DAY_MS
    overlap, together = _with_cart(context, place, ordinal, ages)
    return np.column_stack(
        [
            n,
            n / len(ts_ms),
            n / total,
            n / (total - first + 2),
            since,
            age,
            np.where(n > 1, (age - since) / np.maximum(n - 1, 1), np.nan),
            _last_gap(place, ts_ms, m),
            np.full(m, np.nan),
            total - 1 - last,
            *(np.bincount(place, 0.5 ** (ages / half_life), m) for half_life in HALF_LIVES_DAYS),
            np.bincount(place, np.exp(-recency / 8), m),
            np.bincount(place, recency < 5, m),
            np.bincount(place, recency < 15, m),
            overlap,
            together,
            together / n,
        ]
    ).astype(np.float32)


def _last_gap(place: NDArray[np.int64], ts_ms: NDArray[np.int64], m: int) -> NDArray[np.float64]:
    """Days between the two newest purchases of each item; NaN where there is one."""
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place, minlength=m))
    newest = ts_ms[order[ends - 1]]
    several = np.diff(ends, prepend=0) > 1
    before = ts_ms[order[np.maximum(ends - 2, 0)]]
    return np.where(several, (newest - before) / DAY_MS, np.nan)


def _with_cart(
    context: Context, place: NDArray[np.int64], ordinal: NDArray[np.int64], ages: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each bought item: past baskets weighted by their overlap with the cart (cosine, halved every 100 days), and
    how many of them share anything with it."""
    m = len(context.bought)
    if not len(context.cart):
        return np.zeros(m), np.zeros(m)
    in_cart = np.isin(context.bought, context.cart)[place]
    sizes = np.bincount(ordinal)
    shared = np.bincount(ordinal, in_cart, len(sizes))
    age = np.zeros(len(sizes))
    age[ordinal] = ages
    weight = shared / np.sqrt(sizes * len(context.cart)) * 0.5 ** (age / 100)
    overlap = np.bincount(place, weight[ordinal], m).astype(np.float64)
    together = np.bincount(place, (shared > 0)[ordinal], m).astype(np.float64)
    return overlap, together
