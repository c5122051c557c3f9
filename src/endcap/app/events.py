"""What an event must be to be recorded, wherever it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from endcap.core.errors import CallerError
from endcap.core.types import Event, EventType
from endcap.data.checks import DAY_MS, EARLIEST_MS

MAX_BATCH = 10_000


def check_event(event: Event, now_ms: int, where: str = "event") -> None:
    """Raises CallerError for a time that cannot be, and for an act on no item."""
    if not EARLIEST_MS <= event.ts_ms <= now_ms + DAY_MS:
        raise CallerError(
            f"{event.ts_ms} is before 1995 or more than a day ahead.",
            where=f"{where}.ts_ms",
            next_step="Send UTC milliseconds.",
        )
    if event.item_id is None and event.event_type is not EventType.SEARCH:
        raise CallerError(f"A {event.event_type} needs an item.", where=f"{where}.item_id", next_step="Name the item.")


def check_events(events: Sequence[Event], now_ms: int) -> None:
    """All of a batch, or none: raises CallerError for the first that is wrong."""
    if len(events) > MAX_BATCH:
        raise CallerError(
            f"A batch of {len(events)} events is too large.", where="events", next_step=f"Send at most {MAX_BATCH}."
        )
    for place, event in enumerate(events):
        check_event(event, now_ms, f"events[{place}]")
