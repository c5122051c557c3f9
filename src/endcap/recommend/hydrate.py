"""Features of each candidate for the ranker: what the sources say, what the shopper did, what the item is.

One `Hydrator` serves training and answering; a live request is a batch of one. All features are float32; NaN stands
for "never happened", which LightGBM splits on.

Legend: q contexts, n candidates of all contexts end to end, s sources, i items, l levels (`LEVELS`), g groups:
purchases of one context with one code of one level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from endcap.core.ranking import distinct
from endcap.core.types import Candidates, Context, Float32Array, Int32Array, Int64Array, Placement
from endcap.features.batch import SPAN, Lists, Shoppers, keyed
from endcap.features.groups import Groups, find, gather
from endcap.features.ids import UNKNOWN
from endcap.features.items import ItemTable
from endcap.features.purchases import NAMES as OWN
from endcap.features.purchases import own_features
from endcap.features.stats import ItemStats
from endcap.recommend.candidates import shares

DAY_MS = 86_400_000
PLACEMENTS = {place: code for code, place in enumerate(Placement)}
LEVELS = ("leaf", "middle", "top", "brand", "line")
LEAF = LEVELS.index("leaf")
LEVEL_ROWS = np.arange(len(LEVELS))[:, None]
OWN_N = OWN.index("own_n")
LOOKED_AT = ("leaf", "brand")
GROUP = ("n", "share", "days_since", "days_first", "due")
SHARE = GROUP.index("share")
LEAF_LATELY, MIDDLE_LATELY, LOG_PRICE = 10, 11, 12  # among the columns of `_item_columns`
NEVER = np.array([0, 0, np.nan, np.nan, np.nan], np.float32)
Block = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int64]


class Hydrator:
    """Builds the feature matrix. `names` are its columns, in order; a ranker is bound to them."""

    def __init__(self, table: ItemTable, stats: ItemStats, sources: Sequence[str]) -> None:
        self._table, self._interval_days = table, stats.interval_days
        self._log_price = _log(table.price)
        self._leaf, self._middle = _sold(table.leaf, stats.lately), _sold(table.middle, stats.lately)
        self._items = self._item_columns(table, stats)
        self._codes = np.stack([getattr(table, level) for level in LEVELS]) - UNKNOWN  # 0 stands for UNKNOWN
        self.names: tuple[str, ...] = (
            *(f"score_{name}" for name in sources),
            *(f"rank_{name}" for name in sources),
            *(f"share_{name}" for name in sources),
            "proposed_by",
            *OWN,
            *(f"{level}_{part}" for level in LEVELS for part in GROUP),
            "share_of_leaf",
            "leaf_variety",
            *(f"in_cart_{level}" for level in LEVELS),
            *(f"in_session_{level}" for level in LOOKED_AT),
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
            "seen_popularity",
            "last_popularity",
        )

    def features(self, candidates: Candidates, contexts: Sequence[Context]) -> Float32Array:
        """float32 [n, len(names)], each row as it is for its context alone. contexts: at least one.

        ValueError where the candidates are not of so many contexts, or not of the sources in `names`.
        """
        if len(candidates.sizes) != len(contexts):
            raise ValueError(f"there are candidates of {len(candidates.sizes)} contexts for {len(contexts)} contexts")
        matrix = np.empty((len(candidates.items), len(self.names)), np.float32)
        place = 0
        for block in self._blocks(candidates, contexts):
            matrix[:, place : place + block.shape[1]] = block
            place += block.shape[1]
        if place != len(self.names):
            raise ValueError(f"there are {place} columns for {len(self.names)} names")
        return matrix

    def _item_columns(self, table: ItemTable, stats: ItemStats) -> Float32Array:
        """float32 [i, 13]: what is the same for every shopper, `item_baskets` to `log_price`."""
        leaf, middle = _of_category(self._leaf, table.leaf), _of_category(self._middle, table.middle)
        return np.column_stack(
            [
                stats.baskets,
                stats.users,
                stats.repeat,
                stats.trend,
                stats.quiet_days,
                stats.interval_days,
                stats.lately,
                stats.newcomers,
                stats.basket_size,
                np.expm1(stats.lately) / (1 + leaf),
                leaf,
                middle,
                self._log_price,
            ]
        )

    def put(self, place: int) -> None:
        """Take over what the table says of an item now."""
        self._codes[:, place] = [getattr(self._table, level)[place] - UNKNOWN for level in LEVELS]
        self.reprice(np.array([place]))
        for column, level, lately in ((LEAF_LATELY, "leaf", self._leaf), (MIDDLE_LATELY, "middle", self._middle)):
            code = getattr(self._table, level)[place]
            self._items[place, column] = lately[code] if 0 <= code < len(lately) else 0

    def reprice(self, places: Int64Array) -> None:
        """Take over what the table says of prices now. places: int64 [m]."""
        self._log_price[places] = _log(self._table.price[places])
        self._items[places, LOG_PRICE] = self._log_price[places]

    def _blocks(self, candidates: Candidates, contexts: Sequence[Context]) -> Iterator[Block]:
        """The columns in the order of `names`, several at a time: [n, some]."""
        shoppers, proposed = Shoppers.of(contexts), Lists.joined(candidates.items, candidates.sizes)
        rows, items, codes = proposed.rows, proposed.items, self._keys(proposed)
        own = own_features(shoppers, proposed, self._interval_days[items])
        yield candidates.scores
        yield candidates.ranks
        yield shares(candidates)
        yield (candidates.ranks < candidates.per_source).sum(axis=1, dtype=np.float32)[:, None]
        yield own
        groups = self._groups(shoppers)
        found = find(groups.codes, codes)
        in_groups = self._group_table(groups, shoppers)[found.T]
        in_groups[(shoppers.n_orders == 0)[rows], :, SHARE] = np.nan  # no orders, no shares of them
        yield in_groups.reshape(len(items), len(LEVELS) * len(GROUP))
        leaf_n = np.ones(len(groups.n) + 1, np.int32)  # 1 in place of "never", which is only divided by
        leaf_n[:-1] = groups.n
        yield (own[:, OWN_N] / leaf_n[found[LEAF]])[:, None]
        yield self._variety(groups, shoppers.bought)[found[LEAF]][:, None]
        yield self._matches(shoppers.cart, codes, LEVELS)
        yield self._matches(shoppers.session, codes, LOOKED_AT)
        yield self._items[items]
        yield (self._log_price[items] - self._mean_log_price(shoppers)[rows])[:, None]
        yield _totals(shoppers)[rows]
        yield shoppers.cart.sizes[rows, None]
        yield np.array([PLACEMENTS[context.placement] for context in contexts])[rows, None]
        yield self._taste(contexts)[rows]

    def _taste(self, contexts: Sequence[Context]) -> Float32Array:
        """float32 [q, 2]: how popular what a shopper turned to is, in the mean and the newest; NaN for nobody."""
        seen = Lists.of([context.items for context in contexts])
        popularity, there = self._items[seen.items, 0], seen.sizes.nonzero()[0]
        table = np.full((len(contexts), 2), np.nan, np.float32)
        totals = np.bincount(seen.rows, popularity, len(contexts))
        table[there, 0] = totals[there] / seen.sizes[there]
        table[there, 1] = popularity[seen.sizes.cumsum()[there] - 1]
        return table

    def _keys(self, lists: Lists) -> Int64Array:
        """int64 [l, k]: the level, the context and the item's code as one number, in the order of these three."""
        return keyed(lists.rows + len(lists.sizes) * LEVEL_ROWS, self._codes.take(lists.items, axis=1))

    def _groups(self, shoppers: Shoppers) -> Groups[np.int64]:
        """Purchases by context, level and code. UNKNOWN counts as a code of its own."""
        keys = self._keys(shoppers.purchases).ravel()
        ts_ms, baskets = (np.concatenate([part] * len(LEVELS)) for part in (shoppers.ts_ms, shoppers.baskets))
        return gather(keys, ts_ms, baskets)

    def _group_table(self, groups: Groups[np.int64], shoppers: Shoppers) -> Float32Array:
        """float32 [g + 1, len(GROUP)]: baskets with the code, their share, days since the last and the first, and how
        due it is: days since the last over the mean gap between them. The last row is for a code never bought."""
        rows, n = groups.codes // SPAN % len(shoppers.now_ms), groups.n.astype(np.float64)
        last = (shoppers.now_ms[rows] - groups.last_ms) / DAY_MS
        first = (shoppers.now_ms[rows] - groups.first_ms) / DAY_MS
        gap = np.where(n > 1, (first - last) / np.maximum(n - 1, 1), np.nan)
        table = np.empty((len(n) + 1, len(GROUP)), np.float32)
        for number, column in enumerate((n, n / shoppers.n_orders[rows], last, first, last / np.maximum(gap, 0.5))):
            table[:-1, number] = column
        table[:-1][groups.codes % SPAN == 0] = NEVER
        table[-1] = NEVER
        return table

    def _variety(self, groups: Groups[np.int64], bought: Lists) -> NDArray[np.int64]:
        """int64 [g + 1]: how many different items with the leaf category of the group the shopper has bought; 0 for
        other groups and in the last row."""
        leaves = find(groups.codes, self._keys(bought)[LEAF])
        counts = np.bincount(leaves, minlength=len(groups.codes) + 1)
        counts[:-1][groups.codes % SPAN == 0] = 0
        return counts

    def _matches(self, held: Lists, codes: Int64Array, levels: Sequence[str]) -> NDArray[np.int64]:
        """int64 [n, len(levels)]: how many of the items held share the candidate's code. codes: int64 [l, n]."""
        if not len(held.items):
            return np.zeros((codes.shape[1], len(levels)), np.int64)
        columns = [LEVELS.index(level) for level in levels]
        own = self._keys(held)[columns]
        own = own[own % SPAN != 0]
        keys = distinct(own)
        return np.bincount(find(keys, own), minlength=len(keys) + 1)[find(keys, codes[columns]).T]

    def _mean_log_price(self, shoppers: Shoppers) -> Float32Array:
        """float32 [q]: over the purchases with a known price; NaN where there is none."""
        prices = self._log_price[shoppers.purchases.items]
        known = (~np.isnan(prices)).nonzero()[0]
        rows, q = shoppers.purchases.rows[known], len(shoppers.now_ms)
        n = np.bincount(rows, minlength=q)
        summed = np.zeros(len(known) + q, np.float32)  # a zero goes before each context's prices, so that none is empty
        summed[np.arange(len(known)) + rows + 1] = prices[known]
        totals = np.add.reduceat(summed, n.cumsum() - n + np.arange(q))
        return np.where(n > 0, totals / np.maximum(n, 1), np.nan).astype(np.float32)


def _totals(shoppers: Shoppers) -> NDArray[np.float64]:
    """float64 [q, 5] over all purchases of a context: baskets, purchases in each, days since the last one, share that
    were repeats, days between two baskets; NaN but for the first where there are none."""
    table = np.full((len(shoppers.now_ms), 5), np.nan)
    table[:, 0] = shoppers.n_orders
    n = shoppers.purchases.sizes
    there = n.nonzero()[0]
    ends = n.cumsum()[there]
    first_ms, last_ms = shoppers.ts_ms[ends - n[there]], shoppers.ts_ms[ends - 1]
    baskets = shoppers.n_orders[there]
    in_baskets = np.bincount(shoppers.bought.rows, shoppers.bought_n, len(n))[there]
    table[there, 1] = n[there] / baskets
    table[there, 2] = (shoppers.now_ms[there] - last_ms) / DAY_MS
    table[there, 3] = 1 - shoppers.bought.sizes[there] / in_baskets
    table[there, 4] = (last_ms - first_ms) / DAY_MS / np.maximum(baskets - 1, 1)
    return table


def _log(price: Float32Array) -> Float32Array:
    """float32 [n]: NaN where the price is."""
    logs = np.log(np.maximum(np.nan_to_num(price, nan=1.0), 0.01)).astype(np.float32)
    logs[np.isnan(price)] = np.nan
    return logs


def _sold(codes: Int32Array, lately: Float32Array) -> Float32Array:
    """float32 [codes]: recent sales of each category."""
    known = codes != UNKNOWN
    totals = np.bincount(codes[known], np.expm1(lately[known]), int(codes.max(initial=0)) + 1)
    return totals.astype(np.float32)


def _of_category(sold: Float32Array, codes: Int32Array) -> Float32Array:
    """float32 [items]: of the category each item is in; 0 for items without one."""
    found: Float32Array = np.where(codes != UNKNOWN, sold[np.maximum(codes, 0)], 0).astype(np.float32)
    return found
