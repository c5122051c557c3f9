"""A shop on a real Postgres and a real Redis, both killed as a power cut would while events come and answers are asked.

Nothing that was acknowledged is lost or recorded twice, answers go on and say what they lack, and all of it heals.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from threading import Event as Flag
from threading import Thread

import pytest
from tests.servers import PostgresServer, RedisServer, missing_postgres, missing_redis

from endcap.app.runtime import Shop
from endcap.core.errors import ServiceError, TooManyError
from endcap.core.types import Event, EventType

AWAY_S = 3.0


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgresServer, RedisServer]]:
    """Of this module's own, because they are killed."""
    if reason := missing_postgres() or missing_redis():
        pytest.skip(reason)
    with PostgresServer() as postgres, RedisServer("--appendonly", "yes", "--appendfsync", "everysec") as redis:
        yield postgres, redis


@pytest.fixture
def grown(trained, tmp_path, planted, servers, schema, monkeypatch):
    """The trained shop with its log on Postgres, under the same numbers, and its states on Redis."""
    postgres, redis = servers
    monkeypatch.setenv("ENDCAP_STORE_URL", f"{postgres.url}?schema={schema}")
    monkeypatch.setenv("ENDCAP_STATE_URL", redis.url)
    with Shop.open(shutil.copytree(trained, tmp_path / "shop"), clock=lambda: planted.now_ms) as shop:
        shop.ingest(planted.dataset)
        yield shop


class Driver:
    """Records views of one shopper, each until it is acknowledged, and asks for slates beside it."""

    def __init__(self, shop: Shop, item: str, now_ms: int) -> None:
        self.shop, self.item, self.now_ms = shop, item, now_ms
        self.acknowledged: list[str] = []
        self.refused = 0
        self.lacked: set[str] = set()
        self.wrong: list[BaseException] = []
        self._stop = Flag()
        self._threads = [Thread(target=self._write), Thread(target=self._read)]

    def __enter__(self) -> Driver:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, more: int = 3) -> None:
        """Wait until further events were acknowledged."""
        wanted, deadline = len(self.acknowledged) + more, time.monotonic() + 60
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _write(self) -> None:
        place = 0
        while not self._stop.is_set():
            event_id = f"e-{place}"
            view = Event(
                event_type=EventType.VIEW, user_id="ada", item_id=self.item, ts_ms=self.now_ms, event_id=event_id
            )
            try:
                self.shop.record(view)
            except (ServiceError, TooManyError):
                self.refused += 1
                time.sleep(0.02)
                continue
            self.acknowledged.append(event_id)
            place += 1

    def _read(self) -> None:
        while not self._stop.is_set():
            known = len(self.acknowledged)
            try:
                slate = self.shop.recommend(user="ada", n=5)
                seen = self.shop._serving.known("ada")
            except BaseException as error:
                self.wrong.append(error)
                return
            assert len(slate.items) == 5
            self.lacked |= set(slate.degraded)
            time.sleep(0.002)
            if "event_log" not in seen.degraded and len(seen.known.history) < known:
                self.wrong.append(AssertionError(f"{known} acknowledged, {len(seen.known.history)} known"))


@pytest.mark.parametrize("away", ["redis", "postgres", "both"])
def test_nothing_is_lost_and_answers_go_on(grown, servers, planted, away):
    killed = [server for server, name in zip(servers, ("postgres", "redis"), strict=True) if away in (name, "both")]
    item = grown.recommend(n=1).items[0].item_id
    with Driver(grown, item, planted.now_ms) as driver:
        driver.goes_on()
        for server in killed:
            server.kill()
        time.sleep(AWAY_S)
        for server in killed:
            server.start()
        driver.goes_on()
        deadline = time.monotonic() + 60
        while grown.recommend(user="ada", n=5).degraded:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.goes_on()
    assert not driver.wrong, driver.wrong
    recorded = [event.event_id for _, event in grown.store.events_of(["ada"])]
    assert recorded == driver.acknowledged
    assert grown.user("ada").events == len(recorded)
    parts = {"redis": {"online_state"}, "postgres": {"event_log"}, "both": {"event_log", "online_state"}}
    assert driver.lacked & {"online_state", "event_log", "release"} == parts[away]
    assert bool(driver.refused) == (away != "redis")
