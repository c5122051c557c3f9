"""Independent work, spread over forked processes that share what is in memory: many small pieces, or a few large."""

from __future__ import annotations

import gc
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from typing import Any, TypeVar, cast

from threadpoolctl import threadpool_limits

from endcap.core.errors import ServiceError

T = TypeVar("T")
Tell = Callable[[float], None]
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
        try:
            for piece, part in zip(pieces, pool.map(_run, pieces), strict=True):
                done += part
                progress(piece.stop / count)
        except BrokenProcessPool as error:
            raise _ended_early() from error
    return done


def side_by_side(works: Sequence[Callable[[Tell], T]], progress: Callable[[float], None]) -> list[T]:
    """What each work returns, all done at the same time, each in a forked process of its own; one after the other where
    the system does not fork. progress: told the share of all work that is done.

    An error of one is raised here. However this ends, no process is left behind.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return one_by_one(works, progress)
    context = multiprocessing.get_context("fork")
    shares, results = [0.0] * len(works), dict[int, T]()
    places: dict[Any, int] = {}
    processes = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as above
            for place, work in enumerate(works):
                ours, theirs = context.Pipe(duplex=False)
                processes.append(context.Process(target=_report, args=(work, theirs), daemon=True))
                processes[-1].start()
                theirs.close()
                places[ours] = place
        while places:
            for ready in wait(list(places)):
                here = cast(Any, ready)
                kind, value = _received(here)
                if kind == "error":
                    raise value
                if kind == "share":
                    shares[places[here]] = value
                    progress(sum(shares) / len(shares))
                else:
                    results[places.pop(here)] = value
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return [results[place] for place in range(len(works))]


def one_by_one(works: Sequence[Callable[[Tell], T]], progress: Callable[[float], None]) -> list[T]:
    """`side_by_side` in this process."""

    def part(place: int, share: float) -> None:
        progress((place + share) / len(works))

    return [work(partial(part, place)) for place, work in enumerate(works)]


def _received(here: Any) -> tuple[str, Any]:
    try:
        told: tuple[str, Any] = here.recv()
    except EOFError:
        return "error", _ended_early()
    return told


def _ended_early() -> ServiceError:
    problem = "A process ended before its work was done; it may have run out of memory."
    return ServiceError(problem, where="training", next_step="Set train.threads = 1.")


def _report(work: Callable[[Tell], Any], there: Any) -> None:
    """In a process of its own: do it, and tell how it goes."""
    _begin_apart()
    try:
        there.send(("done", work(lambda share: there.send(("share", share)))))
    except Exception as error:
        there.send(("error", error))


def _begin_apart() -> None:
    """In a forked process. What the parent left behind is not tidied up here: a speech model, for one, waits at its end
    for threads that are the parent's alone."""
    gc.freeze()
    threadpool_limits(1)


def _pool(work: Callable[[range], Sequence[Any]], workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_take_up, initargs=(work,))


def _take_up(work: Callable[[range], Sequence[Any]]) -> None:
    """In a worker: what it is to do. Forked, the work comes along as it is and need not be sent.

    One thread a worker: the products are small, and several workers' threads would wait for each other.
    """
    _begin_apart()
    global _work  # noqa: PLW0603
    _work = work


def _run(piece: range) -> Sequence[Any]:
    assert _work is not None
    return _work(piece)
