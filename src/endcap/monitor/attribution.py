"""Which placement and release led to an act: read from the recommendation id that the act quotes, and counted once.

An act counts once for its slate, item and kind, however often the shop sends it. What was counted is remembered in a
bounded memory of 64-bit keys, the oldest of which are forgotten first; an id itself says where it came from (see
`core.slates`), so nothing has to be remembered of the slates.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock

from endcap.core.slates import HEAD_CHARS, head_of, parse
from endcap.core.types import Event, EventType, Placement

MOST = 200_000
KINDS = {  # who looks at an item from a slate has clicked on it, whichever of the two the shop sends
    EventType.IMPRESSION: "impression",
    EventType.CLICK: "click",
    EventType.VIEW: "click",
    EventType.ADD_TO_CART: "add_to_cart",
    EventType.PURCHASE: "purchase",
}


@dataclass(frozen=True, slots=True)
class Act:
    """release: see `slates.release_hash`. opens: no item of this slate had such an act before. revenue: of a purchase,
    price times quantity; 0 where there is no price."""

    placement: Placement
    release: int
    kind: str
    opens: bool
    revenue: float = 0.0
    currency: str = ""


class Attribution:
    """What counts of the events that come. Safe to use from several threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most, self._lock = most, Lock()
        self._seen: OrderedDict[int, None] = OrderedDict()

    def acts(self, events: Iterable[Event]) -> Iterator[Act]:
        """Those that quote an id of ours and were not counted yet."""
        for event in events:
            kind = KINDS.get(event.event_type)
            if kind is None or event.recommendation_id is None:
                continue
            told = parse(event.recommendation_id[:HEAD_CHARS])
            if told is None:
                continue
            head = head_of(event.recommendation_id)
            if not self._first(head, kind, event.item_id or ""):
                continue
            opens = self._first(head, kind)
            yield Act(told.placement, told.release, kind, opens, *_worth(event))

    def _first(self, *parts: str) -> bool:
        """Whether this has not been seen, as far back as is remembered; from now on it has."""
        key = int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=8).digest(), "little")
        with self._lock:
            if key in self._seen:
                return False
            self._seen[key] = None
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)
            return True


def _worth(event: Event) -> tuple[float, str]:
    if event.event_type is not EventType.PURCHASE or event.price is None:
        return 0.0, ""
    return event.price * (1.0 if event.quantity is None else event.quantity), event.currency or ""
