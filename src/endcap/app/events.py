"""What an event must be to be recorded over HTTP or from Python: the rules that `data.checks` has for rows of files.

Blank ids and ids with control characters are refused here only: in a file a blank cell is a missing one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from endcap.core.errors import CallerError
from endcap.core.slates import HEAD_CHARS, head_of
from endcap.core.types import MAX_NUMBER, SESSION_PREFIX, Event, EventType
from endcap.data.checks import DAY_MS, EARLIEST_MS, NUMBERS

MAX_BATCH = 10_000
WITHOUT_ITEM = (EventType.SEARCH, EventType.LOGIN)
IDS = ("user_id", "item_id", "event_id", "session_id", "recommendation_id")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # and halves of a character, which cannot be written


def check_event(event: Event, now_ms: int, where: str = "event") -> None:
    """Raises CallerError for a time that cannot be, an act on no item, a login of nobody or to no session, an id that
    is blank, holds control characters or is kept for sessions, and a number that is not finite or beyond `MAX_NUMBER`,
    a negative price or a quantity that is not above zero."""
    if not EARLIEST_MS <= event.ts_ms <= now_ms + DAY_MS:
        raise CallerError(
            f"{event.ts_ms} is before 1995 or more than a day ahead.",
            where=f"{where}.ts_ms",
            next_step="Send UTC milliseconds.",
        )
    if event.item_id is None and event.event_type not in WITHOUT_ITEM:
        raise CallerError(f"A {event.event_type} needs an item.", where=f"{where}.item_id", next_step="Name the item.")
    _check_shopper(event, where)
    for name in IDS:
        _check_id(name, getattr(event, name), where)
    for name in NUMBERS:
        _check_number(name, getattr(event, name), where)


def check_events(events: Sequence[Event], now_ms: int) -> list[Event]:
    """All of a batch, or none: raises CallerError for the first that is wrong. Event types may be given as text."""
    if len(events) > MAX_BATCH:
        raise CallerError(
            f"A batch of {len(events)} events is too large.", where="events", next_step=f"Send at most {MAX_BATCH}."
        )
    typed = [typed_event(event, f"events[{place}]") for place, event in enumerate(events)]
    for place, event in enumerate(typed):
        check_event(event, now_ms, f"events[{place}]")
    return [recorded(event) for event in typed]


def recorded(event: Event) -> Event:
    """As the log keeps it: of a recommendation's id the head, which says what the event is attributed to."""
    said = event.recommendation_id
    if said is None or len(said) <= HEAD_CHARS:
        return event
    return msgspec.structs.replace(event, recommendation_id=head_of(said))


def typed_event(event: Event, where: str) -> Event:
    """The event with every field of its declared type; Python itself looks at none of them."""
    if not isinstance(event, Event):
        raise CallerError(
            f"A {type(event).__name__} is no Event.",
            where=where,
            next_step="Call record(event) or record(*events) with endcap.Event.",
        )
    try:
        return msgspec.convert(msgspec.structs.asdict(event), Event)
    except msgspec.ValidationError as error:
        raise CallerError(f"{error}.", where=where, next_step="The fields are those of endcap.Event.") from error


def _check_shopper(event: Event, where: str) -> None:
    """A user id that begins as those of sessions do is the event's own session, and a login names user and session."""
    is_login = event.event_type is EventType.LOGIN
    if is_login and event.session_id is None:
        raise CallerError("A login needs a session.", where=f"{where}.session_id", next_step="Name the session.")
    if event.user_id.startswith(SESSION_PREFIX) and (is_login or not event.is_anonymous):
        raise CallerError(
            f"User ids that begin with {SESSION_PREFIX!r} are kept for anonymous sessions.",
            where=f"{where}.user_id",
            next_step="Send a login's user_id, and of an anonymous act the session_id alone.",
        )


def _check_id(name: str, value: str | None, where: str) -> None:
    if value is None or (name == "event_id" and not value):
        return
    if not value.strip():
        raise CallerError(f"The {name} is blank.", where=f"{where}.{name}", next_step="Send an id, or leave it out.")
    if CONTROL.search(value):
        raise CallerError(
            f"The {name} {value!r} holds control characters.",
            where=f"{where}.{name}",
            next_step="Send an id that can be read.",
        )


def _check_number(name: str, value: float | None, where: str) -> None:
    if value is None:
        return
    wrong = ""
    if not math.isfinite(value):
        wrong = "is not a finite number"
    elif name == "price" and value < 0:
        wrong = "is negative"
    elif name == "quantity" and value <= 0:
        wrong = "is not above zero"
    elif abs(value) > MAX_NUMBER:
        wrong = f"is beyond {MAX_NUMBER:g}"
    if wrong:
        raise CallerError(
            f"The {name} {value:g} {wrong}.", where=f"{where}.{name}", next_step="Send what was meant, or leave it out."
        )
