"""Whose an anonymous act is: known answers, and folding one by one, here or on Redis, equals folding a whole log."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.servers import RedisServer, missing_redis

from endcap.core import tables
from endcap.core.types import Event, EventType, session_user
from endcap.data.redis_link import RedisLink
from endcap.features.ids import Vocabulary
from endcap.features.live import LiveStates
from endcap.features.sequences import Histories
from endcap.features.sessions import Logins, owned
from endcap.features.shared import SharedStates

ITEMS = Vocabulary(list("abcdefgh"))
USERS, SESSIONS = ("ada", "bob"), ("s1", "s2")
KINDS = (EventType.VIEW, EventType.ADD_TO_CART, EventType.PURCHASE)


def act(item, ts_ms, *, user=None, session=None, kind=EventType.VIEW) -> Event:
    return Event(
        event_type=kind,
        user_id=user or session_user(session),
        session_id=session,
        item_id=item,
        ts_ms=ts_ms,
        event_id=f"{item}{ts_ms}",
    )


def login(user, session, ts_ms=0) -> Event:
    return act(None, ts_ms, user=user, session=session, kind=EventType.LOGIN)


def table(events) -> pl.DataFrame:
    rows = [{**{name: getattr(event, name) for name in tables.names(tables.EVENTS)}} for event in events]
    return pl.DataFrame(rows, schema=tables.schema(tables.EVENTS)) if rows else tables.empty(tables.EVENTS)


def histories(events) -> Histories:
    return Histories.build(table(events).lazy(), ITEMS)


def live(events, base=()) -> LiveStates:
    states = LiveStates(histories(base), ITEMS)
    states.apply(events)
    return states


def seen(states, user) -> str:
    return "".join(ITEMS.ids[item] for item in states.history(user).items)


@pytest.mark.parametrize("told_before", range(6))
def test_an_act_belongs_to_the_latest_login_before_it_else_to_the_first_after_it(told_before):
    log = [
        act("a", 1, session="s1"),
        login("ada", "s1", 2),
        act("b", 3, session="s1"),
        login("bob", "s1", 4),
        act("c", 5, session="s1"),
        act("d", 6, session="s2"),
    ]
    states = live(log[told_before:], log[:told_before])
    assert (seen(states, "ada"), seen(states, "bob")) == ("ab", "c")
    assert seen(states, session_user("s1")) == "c"
    assert seen(states, session_user("s2")) == "d"
    assert states.known(session_user("s1"), None, lambda _: []).owner == "bob"


def test_an_act_with_a_user_counts_for_them_whoever_logged_in():
    states = live([login("ada", "s1"), act("a", 1, user="bob", session="s1")])
    assert (seen(states, "ada"), seen(states, "bob")) == ("", "a")


def test_a_login_makes_known_and_recorded_twice_changes_nothing():
    states = live([act("a", 1, session="s1"), login("ada", "s1"), login("ada", "s1")])
    assert seen(states, "ada") == "a"
    assert live([login("ada", "s1")]).known("ada", None, lambda _: []).is_known


def test_a_log_without_logins_is_left_as_it_is():
    log = table([act("a", 1, session="s1"), act("b", 1, user="ada")]).lazy()
    assert owned(log) is log


def test_logins_are_kept_with_the_histories(tmp_path):
    built = histories([login("ada", "s1"), login("bob", "s1"), login("ada", "s2"), act("a", 1, user="ada")])
    built.save(tmp_path)
    kept = Histories.load(tmp_path).logins
    assert [kept.of(session) for session in ("s1", "s2", "s3")] == ["bob", "ada", None]
    (tmp_path / "login_users.parquet").unlink()
    assert Histories.load(tmp_path).logins.of("s1") is None
    assert Logins.none().of("s1") is None


@st.composite
def logs(draw) -> list[Event]:
    """Times repeat and come late; sessions are logged in to, by several, or never."""
    log = []
    for place in range(draw(st.integers(0, 14))):
        ts_ms, session = draw(st.integers(1, 6)), draw(st.sampled_from(SESSIONS))
        match draw(st.integers(0, 3)):
            case 0:
                log.append(login(draw(st.sampled_from(USERS)), session, ts_ms))
            case 1:
                log.append(act(ITEMS.ids[place % 8], ts_ms, user=draw(st.sampled_from(USERS)), session=session))
            case _:
                kind = draw(st.sampled_from(KINDS))
                log.append(act(draw(st.sampled_from([*ITEMS.ids, "unknown"])), ts_ms, session=session, kind=kind))
    return log


def assert_same(left, right) -> None:
    for name in ("items", "kinds", "ts_ms", "baskets"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)


@settings(max_examples=40, deadline=None)
@given(log=logs(), share=st.floats(0, 1))
def test_one_by_one_on_top_of_a_release_equals_the_whole_log(log, share):
    cut = round(share * len(log))
    whole, states = histories(log), live(log[cut:], log[:cut])
    for user in whole.users.ids:
        assert_same(whole.of(user), states.history(user))
    for user in USERS:
        assert_same(whole.of(user), states.history(user))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisLink]:
    if reason := missing_redis():
        pytest.skip(reason)
    with RedisServer() as server:
        link = RedisLink(server.url, timeout_s=10)
        yield link
        link.close()


def shared(redis, base, seq, prefix="shop") -> SharedStates:
    return SharedStates(redis, prefix, "r", histories(base), ITEMS, seq)


def reader(log):
    return lambda since: [(seq, event) for seq, event in enumerate(log, 1) if seq > since]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs(), share=st.floats(0, 1), step=st.integers(1, 5))
def test_states_on_redis_equal_those_in_process(redis, log, share, step):
    """Two workers take turns at following the log."""
    redis.client.flushall()
    cut = round(share * len(log))
    workers = [shared(redis, log[:cut], cut) for _ in range(2)]
    for place, until in enumerate([*range(cut, len(log), step), len(log)]):
        local = live(log[cut:until], log[:cut])
        for user in (*USERS, *map(session_user, SESSIONS)):
            here, there = (
                local.known(user, None, lambda _: []),
                workers[place % 2].known(user, until, reader(log[:until])),
            )
            assert (here.owner, here.is_known, until) == (there.owner, there.is_known, there.seq)
            assert_same(here.history, there.history)


def test_a_view_that_is_lost_or_old_is_brought_up_to_date(redis):
    redis.client.flushall()
    log = [act(item, ts_ms, user="ada") for ts_ms, item in enumerate("abcdef", 1)]
    states = shared(redis, [], 0)
    states.known("ada", 3, reader(log))
    old = redis.client.dump("shop:state:r")
    assert "".join(ITEMS.ids[item] for item in states.known("ada", 6, reader(log)).history.items) == "abcdef"
    redis.client.restore("shop:state:r", 0, old, replace=True)
    assert len(states.known("ada", 6, reader(log)).history) == 6
    redis.client.flushall()
    assert len(states.known("ada", 6, reader(log)).history) == 6
    assert redis.client.ttl("shop:state:r") > 0
    assert len(states.known("bob", 6, reader(log)).history) == 0
    assert not states.known("", 6, reader(log)).is_known


def test_shops_and_releases_are_apart(redis):
    redis.client.flushall()
    log = [act("a", 1, user="ada")]
    shared(redis, [], 0).known("ada", 1, reader(log))
    theirs = shared(redis, [], 0, prefix="other").known("ada", None, reader([]))
    assert (len(theirs.history), theirs.is_known) == (0, False)


def test_a_long_stretch_is_folded_in_parts_and_rows_are_bounded(redis, monkeypatch):
    monkeypatch.setattr("endcap.features.shared.AT_ONCE", 3)
    monkeypatch.setattr("endcap.features.shared.MAX_EVENTS", 2)
    redis.client.flushall()
    log = [act("a", ts_ms, user="ada") for ts_ms in range(1, 21)]
    states = shared(redis, [], 0)
    states.prepare(20, reader(log))
    kept = states.known("ada", 20, reader(log)).history
    assert kept.ts_ms[-2:].tolist() == [19, 20]
    assert len(kept) < 20
