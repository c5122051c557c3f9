"""Many small independent pieces of work, spread over processes that share what is in memory already."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
CHUNK = 32
_work: Callable[[int], Any] | None = None


def in_order(work: Callable[[int], T], count: int, workers: int, progress: Callable[[float], None]) -> list[T]:
    """[work(0), ..., work(count - 1)], by forked processes where the system has them and there is enough to do.

    Forked, the workers see the fitted models without a copy. `work` must not write to anything shared, nor draw from a
    generator that another piece draws from, so that the answer does not depend on how many workers there are.
    """
    if workers < 2 or count < 4 * CHUNK or "fork" not in multiprocessing.get_all_start_methods():
        return [_reported(work(place), (place + 1) / count, progress) for place in range(count)]
    global _work  # noqa: PLW0603 - a forked worker finds its work here; it could not be sent to it
    _work = work
    done: list[T] = []
    starts = range(0, count, CHUNK)
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings(), ProcessPoolExecutor(workers, mp_context=context) as pool:
        # Newer Pythons warn of any fork beside threads. The threads here wait, for events to record or for sums to do.
        warnings.simplefilter("ignore", DeprecationWarning)
        for part in pool.map(_run, starts, [min(start + CHUNK, count) for start in starts]):
            done += part
            progress(len(done) / count)
    _work = None
    return done


def _run(start: int, stop: int) -> list[Any]:
    assert _work is not None
    return [_work(place) for place in range(start, stop)]


def _reported(result: T, share: float, progress: Callable[[float], None]) -> T:
    progress(share)
    return result
