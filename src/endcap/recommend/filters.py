"""What may be shown. Every filter is exact and is asked about every item that could appear."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.core.protocols import Filter
from endcap.core.ranking import among
from endcap.core.slates import NONE_SHOWN, Hashes, item_hashes, parse
from endcap.core.types import Context, EventType, Int32Array, Placement, Query
from endcap.features.ids import UNKNOWN
from endcap.features.items import HIGHEST, ItemTable

HIDE_BOUGHT = frozenset({Placement.DISCOVERY})
PURCHASE = EventType.PURCHASE.code
_TRUE = np.ones(8192, np.bool_)
_TRUE.flags.writeable = False


class Eligible:
    """Items the shop sells now: neither hidden nor out of stock. The mask is written to when the catalogue changes."""

    name = "eligible"

    def __init__(self, shown: NDArray[np.bool_]) -> None:
        self.shown = shown

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        return self.shown[items]


class NotExcluded:
    """Neither in the request's `exclude`, nor in the cart, nor the item being looked at."""

    name = "not_excluded"

    def __init__(self, table: ItemTable) -> None:
        self._table = table

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        if not query.exclude and not len(context.cart) and context.anchor < 0:
            return _all(items)
        refused = np.concatenate([self._table.ids.positions(query.exclude), context.cart])
        if context.anchor >= 0:
            refused = np.append(refused, np.int32(context.anchor))
        return ~among(items, np.sort(refused))


class NotBought:
    """Nothing the shopper has bought, where the placement or the request says so."""

    name = "not_bought"

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        hide = query.placement in HIDE_BOUGHT if query.hide_bought is None else query.hide_bought
        return ~among(items, context.bought) if hide else _all(items)


class InCategories:
    """Items with one of the wanted categories at any step of their path, where the request names some."""

    name = "in_categories"

    def __init__(self, table: ItemTable) -> None:
        self._table = table
        steps = table.frame.select(pl.int_range(pl.len(), dtype=pl.Int32).alias("place"), "categories")
        members = steps.explode("categories").drop_nulls().group_by("categories").agg("place")
        self._members = {name: inside.to_numpy() for name, inside in zip(*members, strict=True)}

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        if not query.categories:
            return _all(items)
        wanted = [self._members[name] for name in dict.fromkeys(query.categories) if name in self._members]
        inside = np.isin(items, np.concatenate([np.empty(0, np.int32), *wanted]), kind="table")
        if self._table.changed:
            for place, item in enumerate(items.tolist()):
                if (changed := self._table.changed.get(item)) is not None:
                    inside[place] = not set(query.categories).isdisjoint(changed.categories)
        return inside


class OfBrands:
    """Items of one of the wanted brands, where the request names some."""

    name = "of_brands"

    def __init__(self, table: ItemTable) -> None:
        self._table = table

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        if not query.brands:
            return _all(items)
        codes = [self._table.brand_code(name) for name in dict.fromkeys(query.brands)]
        wanted: NDArray[np.bool_] = np.isin(self._table.brand[items], [code for code in codes if code != UNKNOWN])
        return wanted


class WithAttributes:
    """Items that have every wanted attribute at the wanted value."""

    name = "with_attributes"

    def __init__(self, table: ItemTable) -> None:
        self._table = table

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        if not query.attributes:
            return _all(items)
        wanted = set(query.attributes)
        had = self._table.attributes_of(items)
        return np.fromiter((wanted <= set(pairs.items()) for pairs in had), np.bool_, len(items))


class InPriceRange:
    """Items of a known price within the range, where the request names one."""

    name = "in_price_range"

    def __init__(self, table: ItemTable) -> None:
        self._table = table

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        if query.min_price is None and query.max_price is None:
            return _all(items)
        mask = np.ones(len(items), np.bool_)
        if query.min_price is not None:
            mask &= self._table.price[items] >= min(query.min_price, HIGHEST)
        if query.max_price is not None:
            mask &= self._table.price[items] <= min(query.max_price, HIGHEST)
        return mask


class NotShown:
    """Nothing that earlier pages of the same recommendation showed."""

    name = "not_shown"

    def __init__(self, table: ItemTable) -> None:
        self._ids = table.ids

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        if query.after is None:
            return _all(items)
        ids = self._ids.ids
        hashes = item_hashes(ids[item] if item < len(ids) else "" for item in items.tolist())  # "": a row still blank
        return ~np.isin(hashes, _shown(query.after))


@lru_cache(maxsize=64)
def _shown(recommendation_id: str) -> Hashes:
    told = parse(recommendation_id)
    return NONE_SHOWN if told is None else told.shown


def _all(items: Int32Array) -> NDArray[np.bool_]:
    """bool [n], True; not to be written to."""
    return _TRUE[: len(items)] if len(items) <= len(_TRUE) else np.ones(len(items), np.bool_)


def every(filters: Sequence[Filter], query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
    """bool [n]: allowed by all filters."""
    mask = np.ones(len(items), np.bool_)
    for entry in filters:
        mask &= entry.allowed(query, context, items)
    return mask


def catalogue_filters(table: ItemTable) -> tuple[Filter, ...]:
    """All but `Eligible`: what the shopper, the request and the placement rule out."""
    kinds = (NotExcluded, InCategories, OfBrands, WithAttributes, InPriceRange, NotShown)
    return (NotBought(), *(kind(table) for kind in kinds))
