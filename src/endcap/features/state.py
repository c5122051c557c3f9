"""A user's state: the one function that turns events into what sources and ranker read.

Training slices a history at some past moment and calls `context`; the server appends each accepted event to a
`UserState` and calls the same `context`. There is no second path, so what was learned is what is served.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from endcap.core.types import Context, EventType, Int32Array, Placement
from endcap.features.groups import gather
from endcap.features.sequences import NOTHING, REMEMBERED_CODES, History

MAX_EVENTS = 4096
VISIT_MS = 24 * 3600 * 1000
ADD, REMOVE, PURCHASE = EventType.ADD_TO_CART.code, EventType.REMOVE_FROM_CART.code, EventType.PURCHASE.code
LOOKS = np.array([kind in (EventType.VIEW, EventType.CLICK) for kind in EventType], np.bool_)  # by code


class UserState:
    """One user's events, live. Holds at least the newest `MAX_EVENTS` purchases and as many other events.

    Events may arrive late: each is put where its time belongs, after those of the same time.
    """

    __slots__ = ("_baskets", "_frozen", "_items", "_kinds", "_ts_ms")

    def __init__(self, history: History = NOTHING) -> None:
        self._frozen: History | None = None
        self._hold(history.kept(MAX_EVENTS))

    def __len__(self) -> int:
        return len(self._items)

    def apply(self, item: int, kind: int, ts_ms: int, basket: int) -> None:
        """Fold one event. Kinds that are not remembered (impressions, searches) change nothing."""
        if kind not in REMEMBERED_CODES:
            return
        place = bisect_right(self._ts_ms, ts_ms)
        self._items.insert(place, item)
        self._kinds.insert(place, kind)
        self._ts_ms.insert(place, ts_ms)
        self._baskets.insert(place, basket)
        self._frozen = None
        if len(self._items) > 4 * MAX_EVENTS:
            self._hold(self.history().kept(MAX_EVENTS))

    def history(self) -> History:
        """The events as arrays; shared until the next `apply`, so not to be written to."""
        if self._frozen is None:
            self._frozen = History(
                np.array(self._items, np.int32),
                np.array(self._kinds, np.int8),
                np.array(self._ts_ms, np.int64),
                np.array(self._baskets, np.uint64),
            )
        return self._frozen

    def _hold(self, kept: History) -> None:
        self._items: list[int] = kept.items.tolist()
        self._kinds: list[int] = kept.kinds.tolist()
        self._ts_ms: list[int] = kept.ts_ms.tolist()
        self._baskets: list[int] = kept.baskets.tolist()
        self._frozen = None


def context(
    history: History,
    now_ms: int,
    placement: Placement,
    *,
    cart: Int32Array | None = None,
    anchor: int = -1,
    row: int = -1,
) -> Context:
    """What is known at `now_ms`, from a history that holds nothing later.

    cart: given by the request; None means what the history's cart events leave in it.
    """
    kept = history.kept(MAX_EVENTS)
    purchases = (kept.kinds == PURCHASE).nonzero()[0]
    bought = gather(kept.items[purchases], kept.ts_ms[purchases], kept.baskets[purchases])
    since_order = int(purchases[-1]) + 1 if len(purchases) else 0
    return Context(
        now_ms=now_ms,
        placement=placement,
        items=kept.items,
        kinds=kept.kinds,
        ts_ms=kept.ts_ms,
        baskets=kept.baskets,
        bought=bought.codes,
        bought_n=bought.n,
        bought_first_ms=bought.first_ms,
        bought_last_ms=bought.last_ms,
        cart=_cart(kept, since_order) if cart is None else cart,
        session=_session(kept, since_order, now_ms),
        anchor=anchor,
        row=row,
    )


def _cart(history: History, since: int) -> Int32Array:
    """What the cart holds, in the order it was put there: added since the newest order and not taken out again."""
    held: dict[int, None] = {}
    for item, kind in zip(history.items[since:].tolist(), history.kinds[since:].tolist(), strict=True):
        if kind == ADD:
            held[item] = None
        elif kind == REMOVE:
            held.pop(item, None)
    return np.fromiter(held, np.int32, len(held))


def _session(history: History, since: int, now_ms: int) -> Int32Array:
    """Distinct items looked at since the newest order, during this visit, the newest last."""
    looks = LOOKS[history.kinds[since:]] & (history.ts_ms[since:] >= now_ms - VISIT_MS)
    looked: dict[int, None] = {}
    for item in history.items[since:][looks].tolist():
        looked.pop(item, None)
        looked[item] = None
    return np.fromiter(looked, np.int32, len(looked))
