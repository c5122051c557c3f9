"""What goes over the wire, each field with its meaning; the same models make the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.core.types import EventType, Placement

Id = Annotated[str, Field(min_length=1, max_length=256)]
Label = Annotated[str, Field(max_length=256)]


def _wire(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": list(examples)} if examples else None,
    )


class Line(BaseModel):
    """One of several items of an event."""

    model_config = _wire()
    item_id: Id
    quantity: float | None = Field(None, gt=0, description="Units.")
    price: float | None = Field(None, ge=0, description="Per unit, in the event's currency.")


class EventIn(BaseModel):
    """One act of a shopper on one item, on several (`items`), a search, or a login to a session."""

    model_config = _wire(
        {"event_id": "e-1", "event_type": "add_to_cart", "user_id": "42", "item_id": "1082185"},
        {
            "event_id": "order-77",
            "event_type": "purchase",
            "user_id": "42",
            "session_id": "order-77",
            "items": [{"item_id": "1082185", "quantity": 2, "price": 0.99}, {"item_id": "995242", "price": 1.29}],
            "currency": "USD",
        },
    )
    event_type: EventType
    user_id: Id | None = Field(None, description="The shopper. Missing: whoever the session belongs to.")
    event_id: str = Field("", max_length=256, description="Makes sending it again harmless. Empty: one is made up.")
    ts_ms: int | None = Field(None, description="When, UTC milliseconds. Missing: now.")
    session_id: Label | None = Field(None, description="The visit; for purchases the order.")
    item_id: Id | None = Field(None, description="The item; missing for searches, logins and where `items` is given.")
    items: list[Line] = Field([], max_length=1000, description="Several items: recorded as one event for each.")
    quantity: float | None = Field(None, gt=0, description="Units.")
    price: float | None = Field(None, ge=0, description="Per unit, in `currency`.")
    currency: str | None = Field(None, max_length=8, description="ISO 4217.")
    value: float | None = Field(None, description="A rating.")
    query: str | None = Field(None, max_length=1000, description="What was searched.")
    placement: Label | None = Field(None, description="Where the item was shown.")
    recommendation_id: Label | None = Field(None, description="The slate that led here.")


class EventsIn(BaseModel):
    """A batch."""

    model_config = _wire()
    events: list[EventIn] = Field(min_length=1, max_length=1000)


class Rejected(BaseModel):
    position: int = Field(description="Place in the batch, from 0.")
    reason: str


class EventsAnswer(BaseModel):
    """accepted, duplicates: event ids. An accepted event is on disk, and the next answer knows of it."""

    model_config = _wire(
        {
            "accepted": ["e-1"],
            "duplicates": ["e-0"],
            "rejected": [
                {"position": 2, "reason": "user_id: Neither user_id nor session_id is given. Send one of them."}
            ],
        }
    )
    accepted: list[str]
    duplicates: list[str] = Field(description="Recorded before under the same id; left as they were.")
    rejected: list[Rejected]


class SessionEvent(BaseModel):
    """An act of this visit that is not recorded and counts for this answer only."""

    model_config = _wire()
    event_type: EventType
    item_id: Id
    ts_ms: int | None = Field(None, ge=0, le=2**53, description="UTC milliseconds. Missing: now.")
    session_id: Label | None = None
    quantity: float | None = Field(None, gt=0)


class SimilarParams(BaseModel):
    """The query string of a question about an item."""

    model_config = _wire()
    n: int = Field(10, description="How many items, 1 to 500.")
    locale: str = Field("en", max_length=35, description="Language of the reasons.")


class RecommendBase(BaseModel):
    """What both ways of asking have in common."""

    user_id: Label | None = Field(None, description="The shopper; a stranger without one.")
    session_id: Label | None = Field(None, description="Without `user_id`: the visit whose shopper is meant.")
    placement: Placement = Field(Placement.HOME, description="Where the slate is shown.")
    n: int = Field(10, description="How many items, 1 to 500.")
    item_id: Label | None = Field(None, description="The item looked at; the placement `item` needs it.")
    hide_bought: bool | None = Field(None, description="Leave out what was bought. Missing: the placement's own rule.")
    locale: str = Field("en", max_length=35, description="Language of the reasons.")


class RecommendParams(RecommendBase):
    """The query string. Lists are repeated or separated by commas."""

    model_config = _wire()
    cart: list[str] = Field([], description="Item ids in the cart, where events do not say.")
    exclude: list[str] = Field([], description="Item ids that must not appear.")
    category: list[str] = Field([], description="Only items of these categories.")


class SearchBase(BaseModel):
    """What every search has in its query string. Lists are repeated or separated by commas."""

    model_config = _wire()
    user_id: Label | None = Field(None, description="The shopper; a stranger without one.")
    n: int = Field(10, description="How many items, 1 to 500.")
    exclude: list[str] = Field([], description="Item ids that must not appear.")
    category: list[str] = Field([], description="Only items of these categories.")
    locale: str = Field("en", max_length=35, description="Language of the reasons.")


class SearchParams(SearchBase):
    """The query string of a search for words."""

    model_config = _wire()
    q: str = Field(max_length=1000, description="What is searched for, in any language that the encoder reads.")


class RecommendIn(RecommendBase):
    """The whole query."""

    model_config = _wire(
        {
            "user_id": "42",
            "placement": "cart",
            "n": 5,
            "cart": ["1082185"],
            "exclude": ["995242"],
            "session_events": [{"event_type": "view", "item_id": "1029743"}],
        }
    )
    cart: list[Id] = Field([], description="Item ids in the cart, where events do not say.")
    exclude: list[Id] = Field([], description="Item ids that must not appear.")
    categories: list[Label] = Field([], description="Only items of these categories.")
    session_events: list[SessionEvent] = Field([], max_length=1000, description="Acts that are not recorded.")
    now_ms: int | None = Field(
        None, ge=0, le=2**53, description="Answer as of this moment, UTC milliseconds. Missing: now."
    )


class RecommendedItem(BaseModel):
    """score: comparable within one slate only. source: which candidate source spoke loudest. reason: why, in words."""

    item_id: str
    title: str
    score: float
    source: str
    reason: str


class SlateAnswer(BaseModel):
    """The list to show, best first. Send `recommendation_id` with the events it leads to."""

    model_config = _wire(
        {
            "recommendation_id": "r-5c1f7a20c0f14f0fb30b7b2d1d0f9a11",
            "release": "20260101T120000-3fa9c1",
            "placement": "home",
            "items": [
                {
                    "item_id": "1082185",
                    "title": "Bananas",
                    "score": 1.92,
                    "source": "buy_again",
                    "reason": "You buy this about every 7 days",
                }
            ],
            "degraded": [],
        }
    )
    recommendation_id: str
    release: str
    placement: Placement
    items: list[RecommendedItem]
    degraded: list[str] = Field(description="Stages that gave way to a fallback for this answer.")


class MediaAnswer(SlateAnswer):
    """The list to show, and of a clip what was heard."""

    heard: str | None = Field(default=None, description="The words that were searched for, of a clip.")
    language: str | None = Field(default=None, description="Code of the language that was spoken, of a clip.")


class UserAnswer(BaseModel):
    """What is known of a shopper."""

    model_config = _wire(
        {
            "user_id": "42",
            "attributes": {"household_size": "2"},
            "events": 512,
            "baskets": 61,
            "cart": [],
            "favourites": ["1082185"],
            "last_seen_ms": 1514700000000,
        }
    )
    user_id: str
    attributes: dict[str, str]
    events: int = Field(description="Events that are kept of them.")
    baskets: int = Field(description="Orders among them.")
    cart: list[str] = Field(description="Item ids in the cart now.")
    favourites: list[str] = Field(description="Item ids bought in the most orders, at most ten.")
    last_seen_ms: int | None


class LiveAnswer(BaseModel):
    status: str = Field(examples=["ok"])
    version: str


class ReadyAnswer(BaseModel):
    """Whether a release is loaded and answers, and what it answers without."""

    ready: bool
    release: str | None = Field(description="The release that answers.")
    items: int
    users: int = Field(description="Shoppers in the release.")
    last_seq: int = Field(description="Number of the newest event in the log.")
    problem: str = Field(description="Why it is not ready, or what is wrong.")
    degraded: list[str] = Field(description="What answers do without now: release, event_log, online_state.")
