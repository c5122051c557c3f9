"""What sells: to everyone, lately, and within the categories a shopper buys from.

Legend: i items, c leaf categories. The counting unit is a basket: an item bought three times in one order sold once.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydantic import Field

from endcap.core.ranking import best_positions
from endcap.core.section import Section
from endcap.core.types import Context, EventType, Evidence, Float32Array, Int32Array, Int64Array, Reason
from endcap.features.ids import UNKNOWN
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.models.evidence import SILENCE, RankedEvidence

DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code


class PopularityConfig(Section):
    half_life_days: float = Field(14.0, gt=0, description="Age at which a sale counts half in recent popularity.")
    category_half_life_days: float = Field(90.0, gt=0, description="The same for a shopper's interest in a category.")


class Popularity:
    """scores: float32 [i]. One ranking for all."""

    def __init__(self, name: str, scores: Float32Array) -> None:
        self.name, self.scores = name, scores.astype(np.float32)
        order = np.lexsort((np.arange(len(scores)), -self.scores)).astype(np.int32)
        self._evidence = RankedEvidence(self.scores, order[self.scores[order] > 0])

    def weigh(self, context: Context) -> Evidence:
        return self._evidence

    def explain(self, context: Context, item: int) -> Reason | None:
        return Reason(self.name, self.name) if self.scores[item] > 0 else None

    def save(self, folder: Path) -> None:
        np.save(folder / "scores.npy", self.scores)
        (folder / "source.json").write_text(json.dumps({"name": self.name}))

    @classmethod
    def load(cls, folder: Path) -> Popularity:
        name = json.loads((folder / "source.json").read_text())["name"]
        return cls(name, np.load(folder / "scores.npy", allow_pickle=False))


class CategoryPopularity:
    """A shopper's share of interest in each leaf category times the item's share of recent sales within it."""

    name = "category"

    def __init__(self, leaf: Int32Array, share: Float32Array, half_life_days: float) -> None:
        self.leaf, self.share, self.half_life_days = leaf, share.astype(np.float32), half_life_days
        self._known = np.where(leaf == UNKNOWN, 0, leaf)
        self._categories = int(leaf.max(initial=0)) + 1
        sold = np.flatnonzero(self.share > 0).astype(np.int32)
        self._sold = sold[np.lexsort((sold, -self.share[sold], self._known[sold]))]
        self._starts = np.searchsorted(self._known[self._sold], np.arange(self._categories + 1))
        self._last: tuple[Context, Float32Array | None] | None = None

    def weigh(self, context: Context) -> Evidence:
        interest = self._interest(context)
        self._last = (context, interest)  # reasons are often asked for next
        return SILENCE if interest is None else _Favourites(self, interest)

    def best(self, leaf: int, k: int) -> Int32Array:
        """int32 [<= k]: what sells best in a leaf category."""
        return self._sold[self._starts[leaf] : min(self._starts[leaf] + k, self._starts[leaf + 1])]

    def scores(self, interest: Float32Array, items: Int32Array) -> Float32Array:
        """float32 [n] of items int32 [n]."""
        return interest[self._known[items]] * self.share[items]

    def explain(self, context: Context, item: int) -> Reason | None:
        held = self._last
        if held is None or held[0] is not context:  # the items of one slate are explained one after the other
            held = self._last = (context, self._interest(context))
        interest = held[1]
        if interest is None or self.leaf[item] == UNKNOWN or interest[self.leaf[item]] <= 0:
            return None
        return Reason(self.name, "category")

    def save(self, folder: Path) -> None:
        np.save(folder / "leaf.npy", self.leaf)
        np.save(folder / "share.npy", self.share)
        (folder / "source.json").write_text(json.dumps({"half_life_days": self.half_life_days}))

    @classmethod
    def load(cls, folder: Path) -> CategoryPopularity:
        leaf, share = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("leaf", "share"))
        return cls(leaf, share, json.loads((folder / "source.json").read_text())["half_life_days"])

    def _interest(self, context: Context) -> Float32Array | None:
        """float32 [c], summing to 1: decayed acts per leaf category, the cart counting as acts of now."""
        items = np.concatenate([context.items, context.cart])
        ages = np.concatenate([context.now_ms - context.ts_ms, np.zeros(len(context.cart), np.int64)])
        known = self.leaf[items] != UNKNOWN
        if not known.any():
            return None
        weights = 0.5 ** (np.maximum(ages[known], 0) / (self.half_life_days * DAY_MS))
        interest = np.bincount(self.leaf[items[known]], weights, self._categories)
        total = interest.sum()
        return (interest / total).astype(np.float32) if total > 0 else None


class _Favourites:
    """Evidence of one interest, float32 [c]. The best items are among the best of each category of interest."""

    __slots__ = ("_interest", "_source")

    def __init__(self, source: CategoryPopularity, interest: Float32Array) -> None:
        self._source, self._interest = source, interest

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        leaves = self._interest.nonzero()[0].tolist()
        items = np.concatenate([np.empty(0, np.int32), *(self._source.best(leaf, k) for leaf in leaves)])
        items.sort()
        scores = self.at(items)
        rows = best_positions(scores, k, above=0)
        return items[rows], scores[rows]

    def at(self, items: Int32Array) -> Float32Array:
        return self._source.scores(self._interest, items)


def fit_popularity(histories: Histories, n_items: int, until_ms: int, config: PopularityConfig) -> list[Popularity]:
    """popular: log of baskets sold. trending: the same, each halved every `half_life_days` before `until_ms`.
    newcomers: the same of each shopper's first purchase of the item alone, which is what people are trying."""
    items, ts_ms = sales(histories)
    ever = np.log1p(np.bincount(items, minlength=n_items))
    decay = 0.5 ** (np.maximum(until_ms - ts_ms, 0) / (config.half_life_days * DAY_MS))
    lately = np.log1p(np.bincount(items, decay, n_items))
    tried, first_ms = first_purchases(histories, n_items)
    decay = 0.5 ** (np.maximum(until_ms - first_ms, 0) / (config.half_life_days * DAY_MS))
    newcomers = np.log1p(np.bincount(tried, decay, n_items))
    named = {"popular": ever, "trending": lately, "newcomers": newcomers}
    return [Popularity(name, scores.astype(np.float32)) for name, scores in named.items()]


def fit_category_popularity(
    histories: Histories, items: ItemTable, until_ms: int, config: PopularityConfig
) -> CategoryPopularity:
    sold, ts_ms = sales(histories)
    decay = 0.5 ** (np.maximum(until_ms - ts_ms, 0) / (config.half_life_days * DAY_MS))
    recent = np.bincount(sold, decay, len(items))
    leaf = np.where(items.leaf == UNKNOWN, 0, items.leaf)
    totals = np.bincount(leaf, recent * (items.leaf != UNKNOWN))
    share = np.divide(recent, totals[leaf], out=np.zeros(len(items)), where=totals[leaf] > 0)
    share[items.leaf == UNKNOWN] = 0
    return CategoryPopularity(items.leaf, share.astype(np.float32), config.category_half_life_days)


def sales(histories: Histories) -> tuple[Int32Array, Int64Array]:
    """items int32 and ts_ms int64 of every item in every basket, once a basket; all acts where nothing was bought."""
    events = histories.events
    rows = events.successes()
    if not (events.kinds[rows] == PURCHASE).all():
        return events.items[rows], events.ts_ms[rows]
    items, baskets = events.items[rows], events.baskets[rows]
    users = np.searchsorted(histories.offsets, rows, side="right")
    order = np.lexsort((items, baskets, users))
    users, baskets, items = users[order], baskets[order], items[order]
    repeats = (users[1:] == users[:-1]) & (baskets[1:] == baskets[:-1]) & (items[1:] == items[:-1])
    first = np.ones(len(rows), np.bool_)
    first[1:] = ~repeats
    return items[first], events.ts_ms[rows][order][first]


def first_purchases(histories: Histories, n_items: int) -> tuple[Int32Array, Int64Array]:
    """items int32 and ts_ms int64 of each user's first purchase of each item; of any act where nothing was bought."""
    events = histories.events
    rows = events.successes()
    users = np.searchsorted(histories.offsets, rows, side="right")
    _, firsts = np.unique(users * n_items + events.items[rows], return_index=True)
    return events.items[rows[firsts]], events.ts_ms[rows[firsts]]
