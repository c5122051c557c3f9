"""What answers go on without: a release that cannot be loaded, a log that cannot be read, a Redis that is away."""

from __future__ import annotations

import shutil
import time
from threading import Event as Flag

import pytest
from tests.servers import RedisServer, missing_redis

from endcap.app import serving
from endcap.app.runtime import Shop
from endcap.core.artifacts import POINTER, ReleaseStore
from endcap.core.breaker import Breaker
from endcap.core.errors import ServiceError
from endcap.core.types import Event, EventType, Query, session_user

VIEW, LOGIN = EventType.VIEW, EventType.LOGIN


def act(planted, *, item=None, user=None, session=None, kind=VIEW) -> Event:
    user_id = user or session_user(session)
    return Event(event_type=kind, user_id=user_id, session_id=session, item_id=item, ts_ms=planted.now_ms)


def eventually(holds) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def items(slate) -> list[str]:
    return [one.item_id for one in slate.items]


@pytest.fixture
def elsewhere(folder) -> ReleaseStore:
    """The releases as another process has them."""
    return ReleaseStore(folder / "releases")


def test_the_old_release_answers_until_the_new_one_is_ready(shop, elsewhere, monkeypatch):
    old, new = [manifest.release_id for manifest in elsewhere.list()]
    elsewhere.publish(old)
    assert shop.recommend(n=3).release == old
    ready, begun, read = Flag(), Flag(), serving.read_release

    def slowly(*asked):
        begun.set()
        assert ready.wait(60)
        return read(*asked)

    monkeypatch.setattr(serving, "read_release", slowly)
    elsewhere.publish(new)
    assert shop.recommend(n=3).release == old
    assert begun.wait(60)
    assert [shop.recommend(n=3).release for _ in range(3)] == [old] * 3
    ready.set()
    eventually(lambda: shop.recommend(n=3).release == new)
    assert shop.recommend(n=3).degraded == ()


def test_a_release_that_cannot_be_loaded_leaves_the_last_good_one_answering(shop, elsewhere):
    old, new = [manifest.release_id for manifest in elsewhere.list()]
    shop.publish(old)
    before = shop.recommend(n=5)
    damaged = elsewhere.root / new / "items.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    elsewhere.publish(new)
    eventually(lambda: shop.recommend(n=5).degraded == ("release",))
    assert items(shop.recommend(n=5)) == items(before)
    health = shop.health()
    assert (health.ready, health.release, health.degraded) == (True, old, ("release",))
    assert "items.parquet" in health.problem
    damaged.write_bytes(whole)
    elsewhere.publish(new)
    eventually(lambda: shop.recommend(n=5).release == new)
    assert shop.health().problem == ""


@pytest.mark.parametrize("content", [b'{"release": "20', b""])
def test_half_a_pointer_leaves_the_last_good_release_answering(shop, elsewhere, content):
    release = shop.recommend(n=1).release
    pointer = elsewhere.root / POINTER
    whole = pointer.read_bytes()
    pointer.write_bytes(content)
    eventually(lambda: shop.recommend(n=1).degraded == ("release",))
    assert shop.recommend(n=1).release == release
    pointer.write_bytes(whole + b" ")
    eventually(lambda: shop.recommend(n=1).degraded == ())


def test_what_was_published_here_answers_next(shop):
    old, new = [manifest.release_id for manifest in shop.releases.list()]
    for release in (old, new, old):
        shop.publish(release)
        assert shop.recommend(n=1).release == release


def test_answers_go_on_while_the_log_cannot_be_read(shop, planted, monkeypatch):
    top = items(shop.recommend(n=1))[0]
    shop.record(act(planted, item=top, user="ada"))
    before = shop.recommend(user="ada", n=5)
    shop._serving._log = Breaker(retry_s=0.0)

    def away(*_):
        raise ServiceError("The store is busy.")

    with monkeypatch.context() as broken:
        for name in ("position", "events_after", "titles"):
            broken.setattr(shop.store, name, away)
        without = shop.recommend(user="ada", n=5)
        assert without.degraded == ("event_log",)
        assert items(without) == items(before)
        assert shop.titles([top, "nothing"])[top]
        health = shop.health()
        assert (health.ready, health.degraded, health.problem) == (True, ("event_log",), "The store is busy.")
    assert shop.recommend(user="ada", n=5).degraded == ()
    with monkeypatch.context() as broken:
        broken.setattr(shop.store, "events_after", away)
        shop.record(act(planted, item=items(before)[0], user="ada"))
        assert shop.recommend(user="ada", n=5).degraded == ("event_log",)
    assert shop.user("ada").events == 2


def test_a_closed_store_still_answers(shop):
    shop.recommend(n=1)
    shop.store.close()
    assert shop.recommend(n=3).degraded == ("event_log",)
    assert len(shop.recommend(n=3).items) == 3


def test_an_anonymous_session_is_recommended_for_and_joins_who_logs_in(shop, planted):
    shown = items(shop.recommend(n=24))
    shop.record(act(planted, item=shown[0], session="s1"), act(planted, item=shown[1], session="s1", user="bob"))
    of_session = shop.answer(Query(session_id="s1", n=5))
    assert items(of_session) != items(shop.recommend(n=5))
    assert items(shop.answer(Query(session_id="s1", user_id="ada", n=5))) == items(shop.recommend(n=5))
    shop.record(act(planted, user="ada", session="s1", kind=LOGIN))
    assert items(shop.recommend(user="ada", n=5)) == items(of_session)
    assert items(shop.answer(Query(session_id="s1", n=5))) == items(of_session)
    assert (shop.user("ada").events, shop.user("bob").events) == (1, 1)
    with Shop.open(shop.folder, read_only=True, clock=lambda: planted.now_ms) as other:
        assert other.user("ada").events == 1
    before = shop.user("ada")
    shop.train(evaluate=False)
    assert shop.user("ada") == before
    shop.record(act(planted, item=shown[2], session="s1"))
    assert shop.user("ada").events == 2


class TestOnRedis:
    @pytest.fixture
    def server(self):
        if reason := missing_redis():
            pytest.skip(reason)
        with RedisServer() as server:
            yield server

    @pytest.fixture
    def on_redis(self, folder, planted, server, monkeypatch):
        monkeypatch.setenv("ENDCAP_STATE_URL", server.url)
        with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
            shop._state._link.breaker = Breaker(retry_s=0.0)
            yield shop

    def test_answers_are_those_of_a_state_in_process(self, on_redis, folder, planted, monkeypatch, tmp_path):
        shown = items(on_redis.recommend(n=24))
        log = [
            act(planted, item=shown[0], session="s1"),
            act(planted, item=shown[1], user="ada"),
            act(planted, session="s1", user="ada", kind=LOGIN),
            act(planted, item=shown[2], session="s2"),
        ]
        monkeypatch.delenv("ENDCAP_STATE_URL")
        with Shop.open(shutil.copytree(folder, tmp_path / "copy"), clock=lambda: planted.now_ms) as local:
            for event in log:
                for shop in (local, on_redis):
                    shop.record(event)
                for query in (Query(user_id="ada"), Query(session_id="s1"), Query(session_id="s2"), Query()):
                    assert local.answer(query).items == on_redis.answer(query).items
                    assert on_redis.answer(query).degraded == ()

    def test_without_redis_the_state_is_read_from_the_log_and_heals(self, on_redis, planted, server):
        shown = items(on_redis.recommend(n=24))
        on_redis.record(act(planted, item=shown[0], user="ada"))
        before = on_redis.recommend(user="ada", n=5)
        server.kill()
        without = on_redis.recommend(user="ada", n=5)
        assert without.degraded == ("online_state",)
        assert without.items == before.items
        on_redis.record(act(planted, item=shown[1], user="ada"))
        assert on_redis.user("ada").events == 2
        assert (on_redis.health().ready, on_redis.health().degraded) == (True, ("online_state",))
        server.start()  # and has forgotten everything
        assert on_redis.recommend(user="ada", n=5).degraded == ()
        assert on_redis.user("ada").events == 2
        assert (on_redis.health().ready, on_redis.health().degraded) == (True, ())

    def test_states_of_a_log_that_was_set_back_are_built_anew(self, on_redis, planted):
        shown = items(on_redis.recommend(n=24))
        on_redis.record(act(planted, item=shown[0], user="ada"))
        assert on_redis.user("ada").events == 1
        link, (key,) = on_redis._state._link, on_redis._state._link.client.keys("*:state:*")
        link.client.hset(key, "seq", on_redis.store.last_seq() + 5)
        link.client.hset(key, "u:ada", b"")
        assert on_redis.user("ada").events == 1


def test_an_answer_is_at_hand_while_nothing_has_to_be_taken_over_first(folder, planted):
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        assert not shop.is_at_hand()
        item = shop.recommend(n=1).items[0].item_id
        assert shop.is_at_hand()
        shop.record(Event(event_type=EventType.VIEW, user_id="guest", item_id=item, ts_ms=planted.now_ms))
        assert not shop.is_at_hand()
        shop.recommend("guest", n=1)
        assert shop.is_at_hand()
        shop.patch_item(item, price=3.0)
        assert not shop.is_at_hand()
        shop.recommend(n=1)
        assert shop.is_at_hand()
