"""Features of each candidate for the ranker: what the sources say, what the shopper did, what the item is.

One `Hydrator` serves training and answering. All features are float32; NaN stands for "never happened", which
LightGBM splits on.

Legend: n candidates, s sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Candidates, Context, EventType, Float32Array, Int32Array, Placement
from endcap.features.ids import UNKNOWN
from endcap.features.items import ItemTable
from endcap.features.purchases import NAMES as OWN
from endcap.features.purchases import own_features
from endcap.features.state import Groups, gather
from endcap.features.stats import ItemStats

DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code
PLACEMENTS = {place: code for code, place in enumerate(Placement)}
LEVELS = ("leaf", "middle", "top", "brand", "line")


@dataclass(frozen=True, slots=True)
class _Shopper:
    """Totals over a shopper's purchases."""

    baskets: int
    basket_size: float
    days_since: float
    repeat_share: float
    log_price: float
    pace_days: float


class Hydrator:
    """Builds the feature matrix. `names` are its columns, in order; a ranker is bound to them."""

    def __init__(self, table: ItemTable, stats: ItemStats, sources: Sequence[str]) -> None:
        self._table, self._stats = table, stats
        self._log_price = np.log(np.maximum(np.nan_to_num(table.price, nan=1.0), 0.01)).astype(np.float32)
        self._log_price[np.isnan(table.price)] = np.nan
        self._levels: dict[str, Int32Array] = {level: getattr(table, level) for level in LEVELS}
        self._sold = {level: _sold_in(self._levels[level], stats.lately) for level in ("leaf", "middle")}
        self.names: tuple[str, ...] = (
            *(f"score_{name}" for name in sources),
            *(f"rank_{name}" for name in sources),
            "proposed_by",
            *OWN,
            *(name for level in LEVELS for name in _group_names(level)),
            "share_of_leaf",
            "leaf_variety",
            *(f"in_cart_{level}" for level in LEVELS),
            *(f"in_session_{level}" for level in ("leaf", "brand")),
            "item_baskets",
            "item_users",
            "item_repeat",
            "item_trend",
            "item_quiet_days",
            "item_interval_days",
            "item_lately",
            "item_newcomers",
            "item_basket_size",
            "item_share_of_leaf",
            "leaf_lately",
            "middle_lately",
            "log_price",
            "price_gap",
            "user_baskets",
            "user_basket_size",
            "user_days_since",
            "user_repeat_share",
            "user_pace_days",
            "cart_size",
            "placement",
        )

    def features(self, candidates: Candidates, contexts: Sequence[Context]) -> Float32Array:
        """float32 [n, len(names)]: of the candidates of all contexts, end to end."""
        ends = np.cumsum(candidates.sizes)
        parts = [
            self._features(candidates.take(np.arange(end - size, end)), context)
            for context, size, end in zip(contexts, candidates.sizes, ends, strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _features(self, candidates: Candidates, context: Context) -> Float32Array:
        items, stats = candidates.items, self._stats
        rows = context.kinds == PURCHASE
        bought_items, ts_ms, baskets = context.items[rows], context.ts_ms[rows], context.baskets[rows]
        shopper = self._shopper(context, bought_items, baskets)
        proposed = (candidates.ranks < candidates.per_source).sum(axis=1)
        mine = Groups(context.bought, context.bought_n, context.bought_first_ms, context.bought_last_ms)
        columns: list[NDArray[np.floating] | NDArray[np.integer] | NDArray[np.bool_] | float] = [
            *candidates.scores.T,
            *candidates.ranks.T,
            proposed,
            *own_features(context, items, stats.interval_days[items]).T,
        ]
        groups = {level: gather(codes[bought_items], ts_ms, baskets) for level, codes in self._levels.items()}
        for level, codes in self._levels.items():
            columns += _group_columns(groups[level], codes[items], context.now_ms, shopper.baskets)
        own_n = _baskets_with(mine, items)
        leaf_n = _baskets_with(groups["leaf"], self._table.leaf[items])
        columns += [own_n / np.maximum(leaf_n, 1), self._variety(context.bought, items)]
        columns += [_matches(codes, context.cart, items) for codes in self._levels.values()]
        columns += [_matches(self._levels[level], context.session, items) for level in ("leaf", "brand")]
        columns += [
            stats.baskets[items],
            stats.users[items],
            stats.repeat[items],
            stats.trend[items],
            stats.quiet_days[items],
            stats.interval_days[items],
            stats.lately[items],
            stats.newcomers[items],
            stats.basket_size[items],
            np.expm1(stats.lately[items]) / (1 + self._sold["leaf"][items]),
            self._sold["leaf"][items],
            self._sold["middle"][items],
            self._log_price[items],
            self._log_price[items] - shopper.log_price,
            shopper.baskets,
            shopper.basket_size,
            shopper.days_since,
            shopper.repeat_share,
            shopper.pace_days,
            len(context.cart),
            PLACEMENTS[context.placement],
        ]
        matrix = np.empty((len(items), len(columns)), np.float32)
        for place, column in enumerate(columns):
            matrix[:, place] = column
        return matrix

    def _shopper(self, context: Context, items: Int32Array, baskets: NDArray[np.uint64]) -> _Shopper:
        if not len(items):
            return _Shopper(0, np.nan, np.nan, np.nan, np.nan, np.nan)
        n = 1 + int(np.count_nonzero(baskets[1:] != baskets[:-1]))
        first, last = int(context.bought_first_ms.min()), int(context.bought_last_ms.max())
        prices = self._log_price[items]
        known = ~np.isnan(prices)
        return _Shopper(
            n,
            len(items) / n,
            (context.now_ms - last) / DAY_MS,
            1 - len(context.bought) / int(context.bought_n.sum()),
            float(prices[known].mean()) if known.any() else np.nan,
            (last - first) / DAY_MS / max(1, n - 1),
        )

    def _variety(self, bought: Int32Array, items: Int32Array) -> NDArray[np.int64]:
        """How many different items of the candidate's leaf category the shopper has bought."""
        owned = self._table.leaf[bought]
        counts = np.bincount(owned[owned != UNKNOWN], minlength=1)
        leaf = self._table.leaf[items]
        inside = (leaf != UNKNOWN) & (leaf < len(counts))
        return np.where(inside, counts[np.where(inside, leaf, 0)], 0)


def _sold_in(codes: Int32Array, lately: Float32Array) -> Float32Array:
    """float32 [items]: recent sales of the category each item is in; 0 for items without one."""
    known = codes != UNKNOWN
    totals = np.bincount(codes[known], np.expm1(lately[known]), int(codes.max(initial=0)) + 1)
    return np.where(known, totals[np.where(known, codes, 0)], 0).astype(np.float32)


def _group_names(level: str) -> list[str]:
    return [f"{level}_{part}" for part in ("n", "share", "days_since", "days_first", "due")]


def _group_columns(groups: Groups, codes: Int32Array, now_ms: int, user_baskets: int) -> list[NDArray[np.float64]]:
    """Baskets with the code, their share, days since the last and the first, and how due it is: days since the last
    over the mean gap between them."""
    rows, there = groups.find(codes)
    if not len(groups.codes):
        nothing = np.full(len(codes), np.nan)
        return [np.zeros(len(codes)), nothing, nothing, nothing, nothing]
    there &= codes != UNKNOWN
    n = np.where(there, groups.n[rows], 0)
    last = np.where(there, (now_ms - groups.last_ms[rows]) / DAY_MS, np.nan)
    first = np.where(there, (now_ms - groups.first_ms[rows]) / DAY_MS, np.nan)
    gap = np.where(n > 1, (first - last) / np.maximum(n - 1, 1), np.nan)
    return [n.astype(np.float64), n / max(1, user_baskets), last, first, last / np.maximum(gap, 0.5)]


def _baskets_with(groups: Groups, codes: Int32Array) -> NDArray[np.int64]:
    """How many baskets had each code."""
    if not len(groups.codes):
        return np.zeros(len(codes), np.int64)
    rows, there = groups.find(codes)
    return np.where(there, groups.n[rows], 0).astype(np.int64)


def _matches(codes: Int32Array, held: Int32Array, items: Int32Array) -> NDArray[np.int64]:
    """How many of the held items share the candidate's code."""
    if not len(held):
        return np.zeros(len(items), np.int64)
    owned = codes[held]
    counts = np.bincount(owned[owned != UNKNOWN], minlength=1)
    wanted = codes[items]
    inside = (wanted != UNKNOWN) & (wanted < len(counts))
    return np.where(inside, counts[np.where(inside, wanted, 0)], 0)
