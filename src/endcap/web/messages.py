"""What goes over the wire on the routes that shops call all day: events in, slates out.

msgspec reads and writes these several times as fast as pydantic would. Each field has its bounds and its meaning; the
same types make the OpenAPI document (`openapi.py`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from endcap.core.slates import MAX_CHARS
from endcap.core.types import MAX_NUMBER, EventType, Placement, Recommendation

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Label = Annotated[str, Meta(max_length=256)]
Said = Annotated[str, Meta(max_length=MAX_CHARS)]
Moment = Annotated[int, Meta(ge=0, le=2**53)]
Count = Annotated[int, Meta(description="How many items, 1 to 500.")]
Locale = Annotated[str, Meta(max_length=35, description="Language of the reasons.")]
Above = Annotated[float, Meta(gt=0, le=MAX_NUMBER, description="Units.")]
Price = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
Bound = Annotated[float, Meta(ge=0)]
LeastPrice = Annotated[Bound | None, Meta(description="Of this price at least; items without a price are left out.")]
MostPrice = Annotated[Bound | None, Meta(description="Of this price at most; items without a price are left out.")]


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """One of several items of an event."""

    item_id: Id
    quantity: Above | None = None
    price: Annotated[Price | None, Meta(description="Per unit, in the event's currency.")] = None


class EventIn(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One act of a shopper on one item, on several (`items`), a search, or a login to a session."""

    event_type: EventType
    user_id: Annotated[Id | None, Meta(description="The shopper. Missing: whoever the session belongs to.")] = None
    event_id: Annotated[
        str, Meta(max_length=256, description="Makes sending it again harmless. Empty: one is made up.")
    ] = ""
    ts_ms: Annotated[int | None, Meta(description="When, UTC milliseconds. Missing: now.")] = None
    session_id: Annotated[Label | None, Meta(description="The visit; for purchases the order.")] = None
    item_id: Annotated[
        Id | None, Meta(description="The item; missing for searches, logins and where `items` is given.")
    ] = None
    items: Annotated[
        list[Line], Meta(max_length=1000, description="Several items: recorded as one event for each.")
    ] = []
    quantity: Above | None = None
    price: Annotated[Price | None, Meta(description="Per unit, in `currency`.")] = None
    currency: Annotated[Annotated[str, Meta(max_length=8)] | None, Meta(description="ISO 4217.")] = None
    value: Annotated[float | None, Meta(description="A rating.")] = None
    query: Annotated[Annotated[str, Meta(max_length=1000)] | None, Meta(description="What was searched.")] = None
    placement: Annotated[Label | None, Meta(description="Where the item was shown.")] = None
    recommendation_id: Annotated[Said | None, Meta(description="The slate that led here.")] = None


class EventsIn(Struct, frozen=True, forbid_unknown_fields=True):
    """A batch."""

    events: Annotated[list[EventIn], Meta(min_length=1, max_length=1000)]


class Rejected(Struct, frozen=True):
    """An event that was not recorded."""

    position: Annotated[int, Meta(description="Place in the batch, from 0.")]
    reason: str


class EventsAnswer(Struct, frozen=True):
    """accepted, duplicates: event ids. An accepted event is on disk, and the next answer knows of it."""

    accepted: list[str]
    duplicates: Annotated[list[str], Meta(description="Recorded before under the same id; left as they were.")]
    rejected: list[Rejected]


class SessionEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """An act of this visit that is not recorded and counts for this answer only."""

    event_type: EventType
    item_id: Id
    ts_ms: Annotated[Moment | None, Meta(description="UTC milliseconds. Missing: now.")] = None
    session_id: Label | None = None
    quantity: Above | None = None


class FiltersIn(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Only items that are all of this."""

    categories: Annotated[list[Label], Meta(max_length=1000, description="In one of these, at any step.")] = []
    brands: Annotated[list[Label], Meta(max_length=1000, description="Of one of these.")] = []
    attributes: Annotated[dict[str, str], Meta(max_length=20, description="With each of these values.")] = {}
    min_price: LeastPrice = None
    max_price: MostPrice = None


class SimilarParams(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a question about an item."""

    n: Count = 10
    locale: Locale = "en"


class RecommendBase(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What both ways of asking have in common."""

    user_id: Annotated[Label | None, Meta(description="The shopper; a stranger without one.")] = None
    session_id: Annotated[Label | None, Meta(description="Without `user_id`: the visit whose shopper is meant.")] = None
    placement: Annotated[Placement, Meta(description="Where the slate is shown.")] = Placement.HOME
    n: Count = 10
    item_id: Annotated[Label | None, Meta(description="The item looked at; the placement `item` needs it.")] = None
    after: Annotated[
        Said | None,
        Meta(description="The recommendation_id of the page before: what it and earlier pages showed is out."),
    ] = None
    hide_bought: Annotated[
        bool | None, Meta(description="Leave out what was bought. Missing: the placement's own rule.")
    ] = None
    budget_ms: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Time the answer may take; stages that do not fit give way. Missing: the shop's setting."),
    ] = None
    locale: Locale = "en"


class RecommendParams(RecommendBase, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The query string. Lists are repeated or separated by commas."""

    cart: Annotated[list[str], Meta(description="Item ids in the cart, where events do not say.")] = []
    exclude: Annotated[list[str], Meta(description="Item ids that must not appear.")] = []
    category: Annotated[list[str], Meta(description="Only items of these categories.")] = []
    brand: Annotated[list[str], Meta(description="Only items of these brands.")] = []
    min_price: LeastPrice = None
    max_price: MostPrice = None


class RecommendIn(RecommendBase, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole query."""

    cart: Annotated[list[Id], Meta(description="Item ids in the cart, where events do not say.")] = []
    exclude: Annotated[list[Id], Meta(description="Item ids that must not appear.")] = []
    filters: FiltersIn = FiltersIn()
    session_events: Annotated[list[SessionEvent], Meta(max_length=1000, description="Acts that are not recorded.")] = []
    now_ms: Annotated[Moment | None, Meta(description="Answer as of this moment, UTC milliseconds. Missing: now.")] = (
        None
    )


class SearchParams(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The query string of a search by picture or voice. Lists are repeated or separated by commas."""

    user_id: Annotated[Label | None, Meta(description="The shopper; a stranger without one.")] = None
    n: Count = 10
    after: Annotated[Said | None, Meta(description="The recommendation_id of the page before.")] = None
    exclude: Annotated[list[str], Meta(description="Item ids that must not appear.")] = []
    category: Annotated[list[str], Meta(description="Only items of these categories.")] = []
    brand: Annotated[list[str], Meta(description="Only items of these brands.")] = []
    min_price: LeastPrice = None
    max_price: MostPrice = None
    locale: Locale = "en"


class WordsParams(SearchParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The query string of a search for words."""

    q: Annotated[
        str, Meta(max_length=1000, description="What is searched for, in any language that the encoder reads.")
    ]


class SlateAnswer(Struct, frozen=True):
    """The list to show, best first. Send `recommendation_id` with the events it leads to, and as `after` for more."""

    recommendation_id: str
    release: str
    placement: Placement
    items: tuple[Recommendation, ...]
    degraded: Annotated[tuple[str, ...], Meta(description="Stages that gave way to a fallback for this answer.")]


class MediaAnswer(SlateAnswer, frozen=True):
    """The list to show, and of a clip what was heard."""

    heard: Annotated[str | None, Meta(description="The words that were searched for, of a clip.")] = None
    language: Annotated[str | None, Meta(description="Code of the language that was spoken, of a clip.")] = None
