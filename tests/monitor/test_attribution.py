"""Acts count once for the slate they quote, and the memory of it is bounded."""

from __future__ import annotations

from endcap.core.slates import new_id, release_hash
from endcap.core.types import Event, EventType, Placement
from endcap.monitor.attribution import Act, Attribution

RELEASE = release_hash("release-1")


def act(kind: EventType, slate: str | None, item: str | None = "a", **rest) -> Event:
    return Event(event_type=kind, user_id="u", ts_ms=0, item_id=item, recommendation_id=slate, **rest)


def test_act_is_counted_once_for_slate_item_and_kind():
    slate = new_id(Placement.CART, RELEASE, ["a", "b"])
    counted = Attribution()
    events = [
        act(EventType.CLICK, slate),
        act(EventType.CLICK, slate),
        act(EventType.VIEW, slate),  # the same look, told the other way
        act(EventType.CLICK, slate, "b"),
        act(EventType.ADD_TO_CART, slate),
    ]
    found = list(counted.acts(events))
    assert [(one.kind, one.opens) for one in found] == [("click", True), ("click", False), ("add_to_cart", True)]
    assert {(one.placement, one.release) for one in found} == {(Placement.CART, RELEASE)}
    assert list(counted.acts(events)) == []


def test_the_memory_of_a_slate_is_no_part_of_it():
    slate = new_id(Placement.HOME, RELEASE, ["a"])
    counted = Attribution()
    assert len(list(counted.acts([act(EventType.CLICK, slate), act(EventType.CLICK, slate.partition(".")[0])]))) == 1


def test_revenue_is_price_times_quantity():
    slate = new_id(Placement.HOME, RELEASE)
    bought = act(EventType.PURCHASE, slate, price=2.5, quantity=4, currency="EUR")
    assert list(Attribution().acts([bought])) == [Act(Placement.HOME, RELEASE, "purchase", True, 10.0, "EUR")]
    (unpriced,) = Attribution().acts([act(EventType.PURCHASE, slate)])
    assert unpriced.revenue == 0


def test_events_of_no_slate_of_ours_are_left_out():
    events = [
        act(EventType.CLICK, None),
        act(EventType.CLICK, "someone-elses-token"),
        act(EventType.CLICK, "r-" + "!" * 22),
        act(EventType.SEARCH, new_id(Placement.HOME, RELEASE), None),
    ]
    assert list(Attribution().acts(events)) == []


def test_memory_is_bounded_and_forgets_the_oldest():
    counted = Attribution(most=10)
    slates = [new_id(Placement.HOME, RELEASE) for _ in range(20)]
    assert len(list(counted.acts([act(EventType.CLICK, slate) for slate in slates]))) == 20
    assert list(counted.acts([act(EventType.CLICK, slates[-1])])) == []
    assert len(list(counted.acts([act(EventType.CLICK, slates[0])]))) == 1
