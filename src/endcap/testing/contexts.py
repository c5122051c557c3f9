"""Shoppers to test with: contexts made directly from arrays, with no log behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from endcap.core.types import Context, EventType, Placement

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code
VIEW = EventType.VIEW.code


def a_context(
    bought: Sequence[int] = (),
    *,
    viewed: Sequence[int] = (),
    cart: Sequence[int] = (),
    placement: Placement = Placement.HOME,
    anchor: int = -1,
    now_ms: int = NOW_MS,
) -> Context:
    """A shopper who bought the items `bought` one order a day, oldest first, the last of them yesterday, and has
    looked at `viewed` in the seconds before now. All are catalogue positions."""
    items = np.array([*bought, *viewed], np.int32)
    kinds = np.array([PURCHASE] * len(bought) + [VIEW] * len(viewed), np.int8)
    days = now_ms - DAY_MS * np.arange(len(bought), 0, -1, dtype=np.int64)
    seconds = now_ms - 1000 * np.arange(len(viewed), 0, -1, dtype=np.int64)
    baskets = np.array([*range(1, len(bought) + 1), *[len(bought) + 1] * len(viewed)], np.uint64)
    distinct, first, counts = np.unique(items[: len(bought)], return_index=True, return_counts=True)
    last = len(bought) - 1 - np.unique(items[: len(bought)][::-1], return_index=True)[1]
    return Context(
        now_ms=now_ms,
        placement=placement,
        items=items,
        kinds=kinds,
        ts_ms=np.concatenate([days, seconds]),
        baskets=baskets,
        bought=distinct,
        bought_n=counts.astype(np.int32),
        bought_first_ms=days[first],
        bought_last_ms=days[last],
        cart=np.array(cart, np.int32),
        session=np.array(list(dict.fromkeys(reversed(viewed)))[::-1], np.int32),
        anchor=anchor,
    )


def a_stranger(placement: Placement = Placement.HOME) -> Context:
    """Someone of whom nothing is known."""
    return a_context(placement=placement)
