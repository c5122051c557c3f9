"""Each thing that can be asked of a server, once: what is sent, and how the answer is read.

Nothing here knows how it is sent; `client` does, one way that waits and one that does not. Before it is first sent,
every event has an id and every query a key, so that sending again changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from endcap.client import answers
from endcap.client.answers import Deleted, Health, Put, Recorded, Slate, User
from endcap.core.errors import CallerError
from endcap.core.types import Event, Item

T = TypeVar("T")
MAX_EVENTS = 1000
MAX_ITEMS = 1000
JSON = "application/json"
KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """read: the body of a success to what the caller gets. answers_with: statuses whose body it reads."""

    method: str
    path: str
    read: Callable[[bytes], T]
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answers_with: frozenset[int] = frozenset({200})


def recommend(
    user_id: str | None = None,
    n: int = 10,
    *,
    session_id: str | None = None,
    placement: str = "home",
    item_id: str | None = None,
    cart: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    categories: Sequence[str] = (),
    brands: Sequence[str] = (),
    attributes: Mapping[str, str] | None = None,
    min_price: float | None = None,
    max_price: float | None = None,
    session_events: Sequence[Mapping[str, Any]] = (),
    hide_bought: bool | None = None,
    budget_ms: float | None = None,
    locale: str = "en",
    now_ms: int | None = None,
) -> Call[Slate]:
    """A slate for a shopper, for whoever a visit belongs to (`session_id`), or for a stranger. The arguments are the
    fields of the route's body, those of `filters` among them."""
    only = {
        "categories": list(categories),
        "brands": list(brands),
        "attributes": dict(attributes or {}),
        "min_price": min_price,
        "max_price": max_price,
    }
    filters = {name: value for name, value in only.items() if value not in (None, [], {})}
    asked: dict[str, Any] = {
        "user_id": user_id,
        "session_id": session_id,
        "n": n,
        "placement": str(placement),
        "item_id": item_id,
        "cart": None if cart is None else list(cart),
        "exclude": list(exclude),
        "filters": filters or None,
        "budget_ms": budget_ms,
        "session_events": [dict(act) for act in session_events],
        "hide_bought": hide_bought,
        "locale": locale,
        "now_ms": now_ms,
    }
    return _asked({name: value for name, value in asked.items() if value not in (None, [])})


def more(slate: Slate, n: int | None = None) -> Call[Slate]:
    """The next page: the same query without what this slate and the pages before it showed. n: as many again."""
    if not slate.asked:
        raise CallerError(
            "The slate is not the answer to a recommendation.",
            where="more",
            next_step="Give it what `recommend` or `more` returned.",
        )
    return _asked({**slate.asked, "after": slate.recommendation_id, **({} if n is None else {"n": n})})


def similar(item_id: str, n: int = 10, *, locale: str = "en") -> Call[Slate]:
    """What goes with an item, for no shopper in particular. NotFoundError for one that the release does not know."""
    params = {"n": str(n), "locale": locale}
    return Call("GET", f"/v1/items/{_id(item_id)}/similar", _reader(Slate), params, headers=_key())


def search(
    q: str,
    user_id: str | None = None,
    n: int = 10,
    *,
    exclude: Sequence[str] = (),
    categories: Sequence[str] = (),
    locale: str = "en",
) -> Call[Slate]:
    """Items for words, in the order that fits the shopper. Ids and categories may not hold commas here."""
    asked = {"q": q, "user_id": user_id, "n": str(n), "locale": locale}
    asked |= {"exclude": ",".join(exclude), "category": ",".join(categories)}
    params = {name: value for name, value in asked.items() if value}
    return Call("GET", "/v1/search", _reader(Slate), params, headers=_key())


def record(event: Event | Mapping[str, Any]) -> Call[Recorded]:
    """Write one event durably; the next answer takes it into account. CallerError says what is wrong with it."""
    return record_many([event])


def record_many(events: Iterable[Event | Mapping[str, Any]]) -> Call[Recorded]:
    """Write up to 1,000 events, each judged on its own: see `rejected`. CallerError where not one is right."""
    rows = [_event(event) for event in events]
    if not 1 <= len(rows) <= MAX_EVENTS:
        raise CallerError(f"{len(rows)} events are given.", where="events", next_step=f"Give 1 to {MAX_EVENTS}.")
    return _written("POST", "/v1/events", {"events": rows}, Recorded)


def put_items(items: Iterable[Item | Mapping[str, Any]]) -> Call[Put]:
    """Insert or replace up to 1,000 items, each judged on its own: see `rejected`."""
    rows = [msgspec.to_builtins(item) if isinstance(item, Item) else dict(item) for item in items]
    if not 1 <= len(rows) <= MAX_ITEMS:
        raise CallerError(f"{len(rows)} items are given.", where="items", next_step=f"Give 1 to {MAX_ITEMS}.")
    return _written("PUT", "/v1/items", {"items": rows}, Put)


def patch_item(item_id: str, **fields: Any) -> Call[Item]:
    """Change only the fields that are given, those of `Item`; None empties one. NotFoundError for an unknown item."""
    return _written("PATCH", f"/v1/items/{_id(item_id)}", fields, Item)


def item(item_id: str) -> Call[Item]:
    """An item as the catalogue has it. NotFoundError where it has none."""
    return Call("GET", f"/v1/items/{_id(item_id)}", _reader(Item))


def delete_item(item_id: str) -> Call[bool]:
    """Take an item out of the catalogue: it is never shown again. False where it was not there."""
    read = _reader(Deleted)
    return Call("DELETE", f"/v1/items/{_id(item_id)}", lambda body: read(body).deleted)


def put_user(user_id: str, attributes: Mapping[str, Any]) -> Call[User]:
    """Insert or replace a shopper's attributes. The answer has these alone; `user` has the rest."""
    return _written("PUT", f"/v1/users/{_id(user_id)}", {"attributes": dict(attributes)}, User)


def user(user_id: str) -> Call[User]:
    """What is known of a shopper. NotFoundError for someone never heard of."""
    return Call("GET", f"/v1/users/{_id(user_id)}", _reader(User))


def health() -> Call[Health]:
    """Whether the server can answer. One that is not ready says why; one that is not there is a ServiceError."""
    return Call("GET", "/health/ready", _reader(Health), answers_with=frozenset({200, 503}))


def _asked(asked: dict[str, Any]) -> Call[Slate]:
    read = _reader(Slate)
    return Call(
        "POST",
        "/v1/recommendations",
        lambda answer: msgspec.structs.replace(read(answer), asked=asked),
        body=msgspec.json.encode(asked),
        headers={"Content-Type": JSON, **_key()},
    )


def _written(method: str, path: str, body: Any, kind: type[T]) -> Call[T]:
    return Call(method, path, _reader(kind), body=msgspec.json.encode(body), headers={"Content-Type": JSON})


def _event(event: Event | Mapping[str, Any]) -> dict[str, Any]:
    """With an id, so that sending it again records it once."""
    row = msgspec.to_builtins(event) if isinstance(event, Event) else dict(event)
    return {**row, "event_id": row.get("event_id") or uuid.uuid4().hex}


def _key() -> dict[str, str]:
    return {KEY: uuid.uuid4().hex}


def _id(given: str) -> str:
    if not given:
        raise CallerError("The id is empty.", where="id", next_step="Name the item or the user.")
    # Dots alone would be read as steps of the path, and quote() leaves them.
    return given.replace(".", "%2E") if given in (".", "..") else quote(given, safe="")


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    return msgspec.json.Decoder(kind).decode


def problem_of(body: bytes) -> answers.Problem | None:
    """What the server says is wrong; None where the body is not of its making."""
    try:
        return msgspec.json.decode(body, type=answers.ErrorBody).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
