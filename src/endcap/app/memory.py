"""A small key/value memory with a time to live: in this process, or on Redis for all workers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from endcap.data.redis_link import RedisLink


class Memory(Protocol):
    """Bytes under a key for a while. What is kept may be gone sooner: it is a memory, not a store."""

    def remember(self, key: str, value: bytes, ttl_s: float) -> bytes:
        """Keep the value unless the key is there already; what is there now, in either case.

        ServiceError where the memory is away.
        """
        ...

    def recall(self, key: str) -> bytes | None:
        """What was kept under the key; None where nothing is, or no longer. ServiceError where the memory is away."""
        ...


MOST_BYTES = 64 * 1024 * 1024


class LocalMemory:
    """In this process. At most `capacity` values, of `most_bytes` together; what was used longest ago goes first."""

    def __init__(
        self,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._capacity, self._clock, self._most_bytes = capacity, clock, most_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._lock = Lock()

    def remember(self, key: str, value: bytes, ttl_s: float) -> bytes:
        with self._lock:
            there = self._living(key)
            if there is not None:
                return there
            self._kept[key] = (value, self._clock() + ttl_s)
            self._bytes += len(value)
            while len(self._kept) > self._capacity or self._bytes > self._most_bytes:
                _, (gone, _) = self._kept.popitem(last=False)
                self._bytes -= len(gone)
            return value

    def recall(self, key: str) -> bytes | None:
        with self._lock:
            return self._living(key)

    def _living(self, key: str) -> bytes | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if found[1] <= self._clock():
            del self._kept[key]
            self._bytes -= len(found[0])
            return None
        self._kept.move_to_end(key)
        return found[0]


class SharedMemory:
    """On Redis, under `{prefix}:memory:{key}`: what one worker remembers every other recalls."""

    def __init__(self, link: RedisLink, prefix: str) -> None:
        self._link, self._prefix = link, f"{prefix}:memory:"

    def remember(self, key: str, value: bytes, ttl_s: float) -> bytes:
        name, ttl_ms = self._prefix + key, max(int(ttl_s * 1000), 1)
        there = self._link.ask(lambda redis: redis.set(name, value, px=ttl_ms, nx=True, get=True))
        return there if isinstance(there, bytes) else value

    def recall(self, key: str) -> bytes | None:
        found = self._link.ask(lambda redis: redis.get(self._prefix + key))
        return found if isinstance(found, bytes) else None
