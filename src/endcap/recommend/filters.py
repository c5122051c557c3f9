"""What may be shown. Every filter is exact and is asked about every item that could appear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.core.protocols import Filter
from endcap.core.ranking import among
from endcap.core.types import Context, EventType, Int32Array, Placement, Query
from endcap.features.items import ItemTable

HIDE_BOUGHT = frozenset({Placement.DISCOVERY})
PURCHASE = EventType.PURCHASE.code


class Eligible:
    """Items the shop sells now: neither hidden nor out of stock. The mask is replaced when the catalogue changes."""

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
        refused = np.concatenate([self._table.ids.positions(query.exclude), context.cart])
        if context.anchor >= 0:
            refused = np.append(refused, np.int32(context.anchor))
        return ~among(items, np.sort(refused))


class NotBought:
    """Nothing the shopper has bought, where the placement or the request says so."""

    name = "not_bought"

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        hide = query.placement in HIDE_BOUGHT if query.hide_bought is None else query.hide_bought
        return ~among(items, context.bought) if hide else np.ones(len(items), np.bool_)


class InCategories:
    """Items with one of the wanted categories at any step of their path, where the request names some."""

    name = "in_categories"

    def __init__(self, table: ItemTable) -> None:
        steps = table.frame.select(pl.int_range(pl.len(), dtype=pl.Int32).alias("place"), "categories")
        members = steps.explode("categories").drop_nulls().group_by("categories").agg("place")
        self._members = {name: inside.to_numpy() for name, inside in zip(*members, strict=True)}

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        if not query.categories:
            return np.ones(len(items), np.bool_)
        wanted = [self._members[name] for name in dict.fromkeys(query.categories) if name in self._members]
        return np.isin(items, np.concatenate([np.empty(0, np.int32), *wanted]), kind="table")


def every(filters: Sequence[Filter], query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
    """bool [n]: allowed by all filters."""
    mask = np.ones(len(items), np.bool_)
    for entry in filters:
        mask &= entry.allowed(query, context, items)
    return mask
