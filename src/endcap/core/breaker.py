"""Asking less of what is away, so that an outage does not cost every answer its timeout."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock


class Breaker:
    """Open from a failure until what failed works again. While it is open one caller every `retry_s` seconds may try,
    the others are told at once not to. Safe to use from several threads."""

    def __init__(self, retry_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_s, self._clock = retry_s, clock
        self._lock = Lock()
        self._is_open, self._next_try = False, 0.0

    @property
    def is_open(self) -> bool:
        return self._is_open

    def allows(self) -> bool:
        """Whether to try. True for one caller only, where it is open and the time has come."""
        if not self._is_open:
            return True
        with self._lock:
            now = self._clock()
            if now < self._next_try:
                return False
            self._next_try = now + self._retry_s
            return True

    def failed(self) -> None:
        with self._lock:
            self._is_open, self._next_try = True, self._clock() + self._retry_s

    def worked(self) -> None:
        self._is_open = False
