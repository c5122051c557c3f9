"""What is remembered once is there for whoever asks, in one process or on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.servers import RedisServer, missing_redis

from endcap.app.memory import LocalMemory, Memory, SharedMemory
from endcap.core.errors import CallerError, ServiceError
from endcap.data.redis_link import RedisLink


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    if reason := missing_redis():
        pytest.skip(reason)
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["local", "shared"])
def memory(request) -> Iterator[Memory]:
    if request.param == "local":
        yield LocalMemory()
        return
    link = RedisLink(request.getfixturevalue("redis").url)
    link.client.flushall()
    yield SharedMemory(link, "shop")
    link.close()


def test_the_first_value_stays(memory):
    assert memory.recall("k") is None
    assert memory.remember("k", b"one", 60) == b"one"
    assert memory.remember("k", b"two", 60) == b"one"
    assert memory.recall("k") == b"one"
    assert memory.recall("another") is None


def test_of_many_at_once_one_is_first(memory):
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda n: memory.remember("k", b"%d" % n, 60), range(64)))
    assert found == {memory.recall("k")}


def test_values_end():
    now = [0.0]
    memory = LocalMemory(clock=lambda: now[0])
    memory.remember("k", b"one", 10)
    now[0] = 10.0
    assert memory.recall("k") is None
    assert memory.remember("k", b"two", 10) == b"two"


def test_the_one_used_longest_ago_goes_first():
    memory = LocalMemory(capacity=2)
    for key in ("a", "b"):
        memory.remember(key, b"", 60)
    memory.recall("a")
    memory.remember("c", b"", 60)
    assert [memory.recall(key) for key in ("a", "b", "c")] == [b"", None, b""]


def test_there_is_room_for_so_many_bytes():
    memory = LocalMemory(most_bytes=10)
    for key in ("a", "b", "c"):
        memory.remember(key, b"1234", 60)
    assert [memory.recall(key) for key in ("a", "b", "c")] == [None, b"1234", b"1234"]
    memory.remember("large", b"12345678901", 60)
    assert memory.recall("c") is None
    assert memory.remember("d", b"1234567890", 60) == b"1234567890"
    assert memory.recall("d") == b"1234567890"


def test_a_shared_value_has_an_end_and_a_prefix(redis):
    link = RedisLink(redis.url)
    link.client.flushall()
    ours, theirs = SharedMemory(link, "ours"), SharedMemory(link, "theirs")
    ours.remember("k", b"one", 60)
    assert theirs.recall("k") is None
    assert 0 < link.client.pttl("ours:memory:k") <= 60_000
    link.close()


def test_redis_that_is_away_is_a_sentence_and_heals():
    if reason := missing_redis():
        pytest.skip(reason)
    server = RedisServer()
    server.start()
    link = RedisLink(server.url, retry_s=0.0)
    memory = SharedMemory(link, "shop")
    memory.remember("k", b"one", 60)
    server.kill()
    for _ in range(2):
        with pytest.raises(ServiceError, match="Redis is away"):
            memory.recall("k")
    server.start()
    assert memory.remember("k", b"two", 60) == b"two"
    server.kill()
    link.close()


def test_no_password_in_errors():
    link = RedisLink("redis://:hush@127.0.0.1:1/0")
    with pytest.raises(ServiceError) as raised:
        SharedMemory(link, "shop").recall("k")
    assert "hush" not in str(raised.value)
    with pytest.raises(CallerError):
        RedisLink("http://127.0.0.1")
