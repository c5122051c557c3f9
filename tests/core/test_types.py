"""The values that pass between rooms: wire names, strictness, codes."""

from __future__ import annotations

import msgspec
import pytest

from endcap.core.types import EVENT_CODES, Availability, Event, EventType, Item, Placement, Query


def test_an_event_travels_as_json() -> None:
    event = Event(event_type=EventType.PURCHASE, user_id="u", ts_ms=5, item_id="i", quantity=2.0)
    wire = msgspec.json.encode(event)
    assert wire == b'{"event_type":"purchase","user_id":"u","ts_ms":5,"item_id":"i","quantity":2.0}'
    assert msgspec.json.decode(wire, type=Event) == event


@pytest.mark.parametrize(
    "wire",
    [
        b'{"event_type":"stare","user_id":"u","ts_ms":5}',
        b'{"event_type":"view","user_id":"u","ts_ms":"now"}',
        b'{"event_type":"view","user_id":"u","ts_ms":5,"itemid":"i"}',
        b'{"event_type":"view","ts_ms":5}',
    ],
    ids=["unknown kind", "time as text", "unknown field", "no user"],
)
def test_a_wrong_event_is_refused(wire: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wire, type=Event)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Item(item_id="i").title = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Query().n = 3  # type: ignore[misc]


def test_event_codes_are_written_in_stores_and_must_not_move() -> None:
    assert EVENT_CODES == {
        "view": 0,
        "click": 1,
        "add_to_cart": 2,
        "remove_from_cart": 3,
        "purchase": 4,
        "impression": 5,
        "search": 6,
        "rating": 7,
        "share": 8,
        "login": 9,
    }
    assert EventType.PURCHASE.code == 4


def test_what_may_be_shown() -> None:
    assert {kind for kind in Availability if kind.shown} == {
        Availability.IN_STOCK,
        Availability.PREORDER,
        Availability.BACKORDER,
    }


def test_a_query_is_for_the_home_page_by_default() -> None:
    assert Query().placement is Placement.HOME
    assert (Query().user_id, Query().n, Query().now_ms) == (None, 10, None)
