import numpy as np
import pytest

from endcap.core.types import EventType, Placement
from endcap.features.groups import find, gather
from endcap.features.ids import basket_key
from endcap.features.sequences import NOTHING
from endcap.features.state import MAX_EVENTS, UserState, context

VIEW, ADD, REMOVE, PURCHASE = (EventType(name).code for name in ("view", "add_to_cart", "remove_from_cart", "purchase"))
DAY_MS = 86_400_000


def state(*events):
    """Events as (item, kind, day, session)."""
    made = UserState()
    for item, kind, day, session in events:
        made.apply(item, kind, int(day * DAY_MS), basket_key(session, int(day * DAY_MS)))
    return made


def seen(made, day=100.0, **rest):
    return context(made.history(), int(day * DAY_MS), Placement.HOME, **rest)


def test_a_stranger_has_an_empty_context():
    known = context(NOTHING, 5, Placement.CART)
    assert all(len(getattr(known, name)) == 0 for name in ("items", "bought", "cart", "session"))
    assert (known.now_ms, known.anchor, known.row) == (5, -1, -1)


def test_bought_items_count_baskets_not_lines():
    known = seen(
        state(
            (7, PURCHASE, 1, "a"),
            (7, PURCHASE, 1, "a"),
            (3, PURCHASE, 1, "a"),
            (7, PURCHASE, 9, "b"),
            (5, VIEW, 9.5, None),
        )
    )
    assert known.bought.tolist() == [3, 7]
    assert known.bought_n.tolist() == [1, 2]
    assert (known.bought_first_ms / DAY_MS).tolist() == [1, 1]
    assert (known.bought_last_ms / DAY_MS).tolist() == [1, 9]


def test_cart_is_what_was_added_since_the_newest_order_and_not_taken_out():
    made = state(
        (1, ADD, 1, None), (1, PURCHASE, 2, "o"), (2, ADD, 3, None), (3, ADD, 3.1, None), (2, REMOVE, 3.2, None)
    )
    assert seen(made).cart.tolist() == [3]
    made.apply(2, ADD, 4 * DAY_MS, 1)
    assert seen(made).cart.tolist() == [3, 2]
    made.apply(3, PURCHASE, 5 * DAY_MS, 2)
    assert seen(made).cart.tolist() == []


def test_a_cart_given_by_the_request_replaces_the_recorded_one():
    assert seen(state((1, ADD, 1, None)), cart=np.array([9], np.int32)).cart.tolist() == [9]


def test_session_is_what_this_visit_looked_at_newest_last_without_repeats():
    made = state((4, VIEW, 90, None), (1, VIEW, 99.5, None), (2, VIEW, 99.6, None), (1, VIEW, 99.7, None))
    assert seen(made).session.tolist() == [2, 1]


def test_late_events_take_the_place_of_their_time():
    in_order = state((1, VIEW, 1, None), (2, VIEW, 2, None), (3, VIEW, 3, None))
    late = state((1, VIEW, 1, None), (3, VIEW, 3, None), (2, VIEW, 2, None))
    assert in_order.history().items.tolist() == late.history().items.tolist() == [1, 2, 3]


def test_impressions_and_searches_are_not_remembered():
    made = state((1, EventType.IMPRESSION.code, 1, None), (1, EventType.SEARCH.code, 1, None))
    assert len(made) == 0


def test_only_the_newest_events_are_kept():
    made = UserState()
    made.apply(7, PURCHASE, 0, 1)
    for step in range(5 * MAX_EVENTS):
        made.apply(step, VIEW, step + 1, step)
    known = seen(made)
    assert known.bought.tolist() == [7]  # browsing does not push orders out
    assert known.items[1] == 4 * MAX_EVENTS
    assert len(known.items) == MAX_EVENTS + 1
    assert len(made) <= 4 * MAX_EVENTS


def test_history_before_is_strict():
    history = state((1, VIEW, 1, None), (2, VIEW, 2, None)).history()
    assert history.before(2 * DAY_MS).items.tolist() == [1]


@pytest.mark.parametrize("wanted", [[5], [0, 5, 9], []])
def test_groups_are_found_by_their_code(wanted):
    groups = gather(np.array([5, 2, 5], np.int32), np.array([1, 2, 3]), np.array([1, 1, 2], np.uint64))
    assert groups.codes.tolist() == [2, 5]
    assert groups.n.tolist() == [1, 2]
    assert (groups.first_ms.tolist(), groups.last_ms.tolist()) == ([2, 1], [2, 3])
    rows = find(groups.codes, np.array(wanted, np.int32))
    assert rows.tolist() == [{2: 0, 5: 1}.get(code, 2) for code in wanted]


def test_nothing_is_found_among_no_groups():
    groups = gather(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.uint64))
    assert find(groups.codes, np.array([[0, 5]], np.int32)).tolist() == [[0, 0]]
