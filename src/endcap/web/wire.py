"""From a body of events to events: each judged on its own, so that a bad one does not take the good ones with it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from endcap.app.events import check_event
from endcap.core.errors import CallerError
from endcap.core.slates import head_of
from endcap.core.types import Event, session_user
from endcap.web.decoding import json_object, message
from endcap.web.messages import EventIn, Line, Rejected
from endcap.web.problems import ROUTES_NEXT_STEP

MAX_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Parsed:
    events: list[Event]
    rejected: list[Rejected]


def parse_events(body: bytes, now_ms: int, max_batch: int = MAX_BATCH) -> Parsed:
    """body: one event object, or `{"events": [...]}`. CallerError where it is neither."""
    events: list[Event] = []
    rejected: list[Rejected] = []
    for position, given in enumerate(_objects(body, max_batch)):
        try:
            made = _events_of(message(given, EventIn), now_ms)
            for event in made:
                check_event(event, now_ms)
            events += made
        except CallerError as error:
            rejected.append(Rejected(position, error.what if error.next_step == ROUTES_NEXT_STEP else str(error)))
    return Parsed(events, rejected)


def _objects(body: bytes, max_batch: int) -> list[Any]:
    given = json_object(body)
    if "events" not in given:
        return [given]
    batch = given["events"]
    if len(given) > 1 or not isinstance(batch, list) or not batch:
        raise CallerError(
            "A batch holds `events`, a list of at least one event, and nothing else.",
            where="events",
            next_step='Send an event or {"events": [...]}.',
        )
    if len(batch) > max_batch:
        raise CallerError(
            f"A batch of {len(batch)} events is too large.", where="events", next_step=f"Send at most {max_batch}."
        )
    return batch


def _events_of(given: EventIn, now_ms: int) -> list[Event]:
    """One event, or one for each of its items, with `#0`, `#1` … after the id."""
    ts_ms = now_ms if given.ts_ms is None else given.ts_ms
    if given.user_id is None and given.session_id is None:
        raise CallerError("Neither user_id nor session_id is given.", where="user_id", next_step="Send one of them.")
    if given.items and given.item_id is not None:
        raise CallerError("Both item_id and items are given.", where="items", next_step="Send one of them.")
    if not given.items:
        return [_event(given, given.event_id, ts_ms, given.item_id, None)]
    stem = given.event_id or uuid.uuid4().hex
    return [_event(given, f"{stem}#{place}", ts_ms, line.item_id, line) for place, line in enumerate(given.items)]


def _event(given: EventIn, event_id: str, ts_ms: int, item_id: str | None, line: Line | None) -> Event:
    """line: what it says of quantity and price goes before what the event says."""
    quantity = given.quantity if line is None or line.quantity is None else line.quantity
    price = given.price if line is None or line.price is None else line.price
    return Event(
        event_type=given.event_type,
        user_id=session_user(given.session_id or "") if given.user_id is None else given.user_id,
        ts_ms=ts_ms,
        item_id=item_id,
        event_id=event_id,
        session_id=given.session_id,
        quantity=quantity,
        price=price,
        currency=given.currency,
        value=given.value,
        query=given.query,
        placement=given.placement,
        recommendation_id=None if given.recommendation_id is None else head_of(given.recommendation_id),
    )
