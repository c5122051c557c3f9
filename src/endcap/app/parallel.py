"""Many small independent pieces of work, spread over processes that share what is in memory already."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

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
    done: list[T] = []
    starts = range(0, count, CHUNK)
    with warnings.catch_warnings(), _pool(work, workers) as pool:
        # Newer Pythons warn of any fork beside threads. The threads here wait, for events to record or for sums to do.
        warnings.simplefilter("ignore", DeprecationWarning)
        for part in pool.map(_run, starts, [min(start + CHUNK, count) for start in starts]):
            done += part
            progress(len(done) / count)
    return done


def _pool(work: Callable[[int], Any], workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_take_up, initargs=(work,))


def _take_up(work: Callable[[int], Any]) -> None:
    """In a worker: what it is to do. Forked, the work comes along as it is and need not be sent.

    One thread a worker: the products are small, and several workers' threads would wait for each other.
    """
    threadpool_limits(1)
    global _work  # noqa: PLW0603
    _work = work


def _run(start: int, stop: int) -> list[Any]:
    assert _work is not None
    return [_work(place) for place in range(start, stop)]


def _reported(result: T, share: float, progress: Callable[[float], None]) -> T:
    progress(share)
    return result
