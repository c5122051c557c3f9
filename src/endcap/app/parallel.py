"""Many small independent pieces of work, spread over processes that share what is in memory already."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
CHUNK = 64
LEAST = 4
_work: Callable[[range], Sequence[Any]] | None = None


def in_order(
    work: Callable[[range], Sequence[T]], count: int, workers: int, progress: Callable[[float], None]
) -> list[T]:
    """[*work(range(0, CHUNK)), *work(range(CHUNK, ...)), ...] up to `count`, by forked processes where the system has
    them and there is enough to do.

    Forked, the workers see the fitted models without a copy. `work` must not write to anything shared, nor draw from a
    generator that another piece draws from, so that the answer does not depend on how many workers there are.
    """
    done: list[T] = []
    pieces = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if workers < 2 or len(pieces) < LEAST or "fork" not in multiprocessing.get_all_start_methods():
        for piece in pieces:
            done += work(piece)
            progress(piece.stop / count)
        return done
    with warnings.catch_warnings(), _pool(work, workers) as pool:
        # Newer Pythons warn of any fork beside threads. The threads here wait, for events to record or for sums to do.
        warnings.simplefilter("ignore", DeprecationWarning)
        for piece, part in zip(pieces, pool.map(_run, pieces), strict=True):
            done += part
            progress(piece.stop / count)
    return done


def _pool(work: Callable[[range], Sequence[Any]], workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_take_up, initargs=(work,))


def _take_up(work: Callable[[range], Sequence[Any]]) -> None:
    """In a worker: what it is to do. Forked, the work comes along as it is and need not be sent.

    One thread a worker: the products are small, and several workers' threads would wait for each other.
    """
    threadpool_limits(1)
    global _work  # noqa: PLW0603
    _work = work


def _run(piece: range) -> Sequence[Any]:
    assert _work is not None
    return _work(piece)
