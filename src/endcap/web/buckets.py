"""Token buckets: how often something may be done, over time, and how much of it at once after a pause."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

MOST = 10_000  # names that are remembered; the one not seen for longest is forgotten first


@dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float


class Buckets:
    """A bucket for each name. It holds `burst` tokens at most and gains `rate` a second; an act takes one, and what it
    turns out to cost beyond that is owed: the level falls below zero, and the next act waits until it is paid.

    now: seconds that never go back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str, rate: float, burst: int) -> int:
        """0 where a token was taken; otherwise whole seconds until there is one."""
        with self._lock:
            bucket = self._filled(name, rate, burst)
            if bucket.level >= 1:
                bucket.level -= 1
                return 0
            return max(1, math.ceil((1 - bucket.level) / rate))

    def owe(self, name: str, rate: float, burst: int, cost: float) -> None:
        """Take more, whatever there is."""
        with self._lock:
            self._filled(name, rate, burst).level -= cost

    def _filled(self, name: str, rate: float, burst: int) -> _Bucket:
        now_s = self._now()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(burst, now_s)
            if len(self._buckets) > MOST:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        bucket.level = min(burst, bucket.level + (now_s - bucket.at_s) * rate)
        bucket.at_s = now_s
        return bucket
