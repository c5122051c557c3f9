"""What slates led to, counted by hand and by the log."""

from __future__ import annotations

import pytest

from endcap.app.effects import DAY_MS, effects, hashes, wilson
from endcap.core.errors import CallerError
from endcap.core.slates import new_id, release_hash
from endcap.core.types import Event, EventType, Placement
from endcap.data.sqlite_store import SqliteStore

NOW_MS = 1_700_000_000_000
ONE, TWO = release_hash("one"), release_hash("two")


@pytest.fixture
def store(tmp_path):
    with SqliteStore.open(tmp_path / "store", create=True) as opened:
        yield opened


def act(kind, slate, item="a", ago_ms=0, **rest):
    return Event(
        event_type=kind,
        user_id="u",
        ts_ms=NOW_MS - ago_ms,
        item_id=item,
        recommendation_id=slate,
        session_id="s",
        **rest,
    )


def measured(store, **rest):
    return effects(store, hashes(["one"]), now_ms=NOW_MS, **rest)


def test_slates_and_items_are_counted_once_by_placement_and_release(store):
    home = [new_id(Placement.HOME, ONE, ["a", "b"]) for _ in range(4)]
    cart = new_id(Placement.CART, TWO)
    store.append([act(EventType.IMPRESSION, slate, item) for slate in home for item in "ab"])
    store.append([act(EventType.CLICK, home[0]), act(EventType.VIEW, home[0].partition(".")[0])])
    store.append([act(EventType.CLICK, home[0], "b"), act(EventType.ADD_TO_CART, home[0])])
    store.append([act(EventType.PURCHASE, home[0], price=2.0, quantity=3.0, currency="EUR")] * 2)
    store.append([act(EventType.PURCHASE, cart, price=5.0)])
    found = measured(store)
    by_cart, by_home = found.effects
    assert (by_home.placement, by_home.release) == ("home", "one")
    assert (by_home.shown, by_home.clicked, by_home.carted, by_home.bought, by_home.unseen) == (4, 1, 1, 1, 0)
    assert (by_home.items_clicked, by_home.items_carted, by_home.items_bought) == (2, 1, 1)
    assert by_home.revenue == {"EUR": 6.0}
    assert by_home.ctr == wilson(1, 4)
    assert (by_cart.placement, by_cart.release) == ("cart", f"{TWO:08x}")
    assert (by_cart.shown, by_cart.bought, by_cart.unseen, by_cart.ctr) == (0, 0, 1, None)
    assert by_cart.revenue == {"": 5.0}


def test_only_the_period_is_read(store):
    slate, older = new_id(Placement.HOME, ONE), new_id(Placement.HOME, ONE)
    store.append([act(EventType.IMPRESSION, slate), act(EventType.IMPRESSION, older, ago_ms=8 * DAY_MS)])
    assert [effect.shown for effect in measured(store, days=7).effects] == [1]
    assert [effect.shown for effect in measured(store).effects] == [2]
    assert measured(store, days=7).since_ms == NOW_MS - 7 * DAY_MS


def test_what_is_not_ours_is_counted_and_left_out(store):
    store.append([act(EventType.CLICK, "a-token-of-another-system"), act(EventType.CLICK, None)])
    found = measured(store)
    assert (found.foreign, found.effects) == (1, ())


def test_bulk_loads_count_as_live_events_do(store):
    slate = new_id(Placement.HOME, ONE)
    store.append([act(EventType.IMPRESSION, slate), act(EventType.CLICK, slate)])
    table = store.events().collect().drop("seq")
    with SqliteStore.open(store.folder.parent / "bulk", create=True) as bulk:
        bulk.append_table(table)
        assert measured(bulk).effects == measured(store).effects


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf")])
def test_days_are_above_zero(store, days):
    with pytest.raises(CallerError, match="above zero"):
        measured(store, days=days)


def test_intervals_are_those_of_wilson():
    assert wilson(0, 0) is None
    found = wilson(5, 100)  # Newcombe 1998 gives such figures by the same formula
    assert found is not None
    assert (found.rate, round(found.lo, 4), round(found.hi, 4)) == (0.05, 0.0215, 0.1118)
    nothing, everything = wilson(0, 10), wilson(10, 10)
    assert nothing is not None
    assert everything is not None
    assert nothing.lo == 0
    assert everything.hi == 1
    assert round(nothing.hi, 4) == 0.2775
