"""Several shoppers at once: what each of them holds, end to end, so that one numpy call serves them all.

Legend: q contexts, k items of all lists, e purchases, m items bought (distinct for each context).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Context, EventType, Int32Array, Int64Array

PURCHASE = EventType.PURCHASE.code
SPAN = 2**32
Value = TypeVar("Value", bound=np.generic)


def keyed(rows: Int64Array, codes: Int32Array) -> Int64Array:
    """int64: a context's row and a code of it (0 or more) as one number, in the order of the pairs."""
    return rows * SPAN + codes


def end_to_end(parts: Sequence[NDArray[Value]]) -> NDArray[Value]:
    """One array or more, one after the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """A list of items of each context. rows: int64 [k], whose each item is. items: int32 [k]. sizes: int64 [q], how
    long each list is."""

    rows: Int64Array
    items: Int32Array
    sizes: Int64Array

    @classmethod
    def of(cls, lists: Sequence[Int32Array]) -> Lists:
        """From one list or more."""
        return cls.joined(end_to_end(lists), np.array([len(part) for part in lists], np.int64))

    @classmethod
    def joined(cls, items: Int32Array, sizes: Int64Array) -> Lists:
        """From items that stand end to end already."""
        rows = np.zeros(len(items), np.int64) if len(sizes) == 1 else np.arange(len(sizes)).repeat(sizes)
        return cls(rows, items, sizes)

    def keys(self) -> Int64Array:
        return keyed(self.rows, self.items)


@dataclass(frozen=True, slots=True, eq=False)
class Shoppers:
    """What features are made of.

    now_ms: int64 [q]. purchases: every one, oldest first within a context; ts_ms int64 [e] and baskets uint64 [e] as
    in `Context`. orders: int64 [e], the order it was part of (a run of one basket), numbered on from context to
    context. n_orders: int64 [q], how many orders each context has. later: int64 [e], how many of them came after it.
    bought: distinct items, ascending within a context. bought_n: int32 [m], in how many baskets each.
    """

    now_ms: Int64Array
    purchases: Lists
    ts_ms: Int64Array
    baskets: NDArray[np.uint64]
    orders: Int64Array
    n_orders: Int64Array
    later: Int64Array
    bought: Lists
    bought_n: Int32Array
    cart: Lists
    session: Lists

    @classmethod
    def of(cls, contexts: Sequence[Context]) -> Shoppers:
        """From at least one context."""
        events = Lists.of([context.items for context in contexts])
        chosen = (end_to_end([context.kinds for context in contexts]) == PURCHASE).nonzero()[0]
        rows = events.rows[chosen]
        baskets = end_to_end([context.baskets for context in contexts])[chosen]
        new_order = np.empty(len(rows), np.bool_)
        new_order[:1] = True
        new_order[1:] = (baskets[1:] != baskets[:-1]) | (rows[1:] != rows[:-1])
        orders = new_order.cumsum() - 1
        n_orders = np.bincount(rows[new_order], minlength=len(contexts))
        return cls(
            now_ms=np.array([context.now_ms for context in contexts], np.int64),
            purchases=Lists(rows, events.items[chosen], np.bincount(rows, minlength=len(contexts))),
            ts_ms=end_to_end([context.ts_ms for context in contexts])[chosen],
            baskets=baskets,
            orders=orders,
            n_orders=n_orders,
            later=n_orders.cumsum()[rows] - 1 - orders,
            bought=Lists.of([context.bought for context in contexts]),
            bought_n=end_to_end([context.bought_n for context in contexts]),
            cart=Lists.of([context.cart for context in contexts]),
            session=Lists.of([context.session for context in contexts]),
        )
