"""The values that pass between rooms. All frozen; wire names are snake_case, times are UTC milliseconds.

Legend for the arrays of `Context` and `Candidates`: items are int32 positions in the release's catalogue,
not shop ids (`features.ids` translates).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]


class EventType(StrEnum):
    """What a shopper did. The order is the storage code: append only."""

    VIEW = "view"
    CLICK = "click"
    ADD_TO_CART = "add_to_cart"
    REMOVE_FROM_CART = "remove_from_cart"
    PURCHASE = "purchase"
    IMPRESSION = "impression"
    SEARCH = "search"
    RATING = "rating"
    SHARE = "share"
    LOGIN = "login"

    @property
    def code(self) -> int:
        return EVENT_CODES[self.value]


EVENT_CODES = {kind.value: code for code, kind in enumerate(EventType)}
SESSION_PREFIX = "session:"
MAX_NUMBER = 1e12  # of a price, a quantity or a rating: beyond it nothing is sold, and sums of it are no numbers


def session_user(session_id: str) -> str:
    """The user id under which the log keeps what a session does anonymously. No shopper may be called so."""
    return SESSION_PREFIX + session_id


class Availability(StrEnum):
    IN_STOCK = "in_stock"
    OUT_OF_STOCK = "out_of_stock"
    PREORDER = "preorder"
    BACKORDER = "backorder"
    HIDDEN = "hidden"

    @property
    def shown(self) -> bool:
        return self not in (Availability.OUT_OF_STOCK, Availability.HIDDEN)


class Placement(StrEnum):
    """Where a slate is shown. `discovery` is a home shelf of things the shopper has never bought."""

    HOME = "home"
    DISCOVERY = "discovery"
    ITEM = "item"
    CART = "cart"
    CATEGORY = "category"
    SEARCH = "search"


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One act on one item (or one search, or a login). `event_id` makes recording it idempotent.

    user_id: of an anonymous act it is `session_user(session_id)`. price: per unit, in `currency`. value: a rating.
    session_id: the visit or, for purchases, the order: purchases that share it were one basket. A login says that
    the session is the user's (`features.sessions` has the rule).
    """

    event_type: EventType
    user_id: str
    ts_ms: int
    item_id: str | None = None
    event_id: str = ""
    session_id: str | None = None
    quantity: float | None = None
    price: float | None = None
    currency: str | None = None
    value: float | None = None
    query: str | None = None
    placement: str | None = None
    recommendation_id: str | None = None

    @property
    def is_anonymous(self) -> bool:
        return self.session_id is not None and self.user_id == SESSION_PREFIX + self.session_id


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing the shop sells. categories: a path from broad to narrow. attributes: any further names and values."""

    item_id: str
    title: str = ""
    description: str = ""
    price: float | None = None
    currency: str | None = None
    categories: tuple[str, ...] = ()
    brand: str | None = None
    attributes: dict[str, str] = {}
    images: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    availability: Availability = Availability.IN_STOCK
    created_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A request for a slate.

    session_id: asked without a user_id, the shopper is whoever the session belongs to. cart, exclude: shop item ids.
    item_id: the item being looked at. session_events: acts of this visit that were not recorded; they count for this
    answer only. now_ms None means the clock's time. hide_bought None means the placement's own rule. categories,
    brands: one of them; attributes: (name, value), all of them; min_price, max_price: of items with a price. after: the
    recommendation_id of the page before. budget_ms None means the shop's own.
    """

    user_id: str | None = None
    placement: Placement = Placement.HOME
    n: int = 10
    now_ms: int | None = None
    item_id: str | None = None
    cart: tuple[str, ...] = ()
    session_events: tuple[Event, ...] = ()
    exclude: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    min_price: float | None = None
    max_price: float | None = None
    hide_bought: bool | None = None
    after: str | None = None
    budget_ms: float | None = None
    locale: str = "en"
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an item was chosen: the source, a template code of that source, and what fills the template.

    because: the catalogue position of the item that led here, or -1.
    """

    source: str
    code: str
    because: int = -1
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """score: comparable within one slate only. source: which candidate source spoke loudest. reason: why, in words.
    title: what a shopper reads, the id where there is none."""

    item_id: str
    title: str
    score: float
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Slate:
    """The list returned. Events about it quote `recommendation_id`, and `after` it comes the next page. degraded:
    stages that gave way to a fallback. stages: the seconds that each took."""

    recommendation_id: str
    release: str
    placement: Placement
    items: tuple[Recommendation, ...]
    degraded: tuple[str, ...] = ()
    stages: dict[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """All that is known of the shopper at one moment, as arrays over catalogue positions.

    items, kinds, ts_ms, baskets: every kept event, oldest first; baskets is the 64-bit key of its session.
    bought: distinct items bought, ascending. bought_n: in how many baskets each; bought_first_ms, bought_last_ms.
    cart: what is in the cart now. session: items viewed or
    clicked since the newest order (newest last). anchor: the item looked at, or -1. row: the user's place among the
    release's histories, or -1 for whom it does not know.
    """

    now_ms: int
    placement: Placement
    items: Int32Array
    kinds: NDArray[np.int8]
    ts_ms: Int64Array
    baskets: NDArray[np.uint64]
    bought: Int32Array
    bought_n: Int32Array
    bought_first_ms: Int64Array
    bought_last_ms: Int64Array
    cart: Int32Array
    session: Int32Array
    anchor: int = -1
    row: int = -1


class Evidence(Protocol):
    """What one source says about every item for one context: higher is better, 0 is silence."""

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        """The best k items with positive scores, best first: items int32 [<=k], scores float32 [<=k]."""
        ...

    def at(self, items: Int32Array) -> Float32Array:
        """Scores float32 [n] of any items int32 [n]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The union of the sources' proposals, for several contexts end to end. items: int32 [n], ascending within a
    context. scores, ranks: float32 [n, sources]; ranks are 0 for a source's best and `per_source` for what it did not
    propose. sizes: int64 [q], how many candidates each context has. best: float32 [q, sources], the highest score a
    source gives to any candidate of the context."""

    items: Int32Array
    scores: Float32Array
    ranks: Float32Array
    per_source: int
    sizes: Int64Array
    best: Float32Array

    @classmethod
    def of(cls, items: Int32Array, scores: Float32Array, ranks: Float32Array, per_source: int) -> Candidates:
        """Those of one context."""
        best = scores.max(axis=0, initial=0)[None]
        return cls(items, scores, ranks, per_source, np.array([len(items)], np.int64), best)

    def take(self, rows: Int64Array) -> Candidates:
        """Some candidates of one context. rows: int64, ascending."""
        size = np.array([len(rows)], np.int64)
        return Candidates(self.items[rows], self.scores[rows], self.ranks[rows], self.per_source, size, self.best)
