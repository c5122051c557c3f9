"""Group commit: many threads write, one thread commits for all who wait.

A commit costs one flush to disk however much it holds. So all work that arrives while a commit is being flushed
waits, and the next commit takes it all; with one caller it is one piece a commit, with sixteen up to sixteen.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from endcap.core.errors import ServiceError, TooManyError

W = TypeVar("W")

QUEUE_LIMIT = 1024
QUEUE_TIMEOUT_S = 0.05
LIVENESS_S = 1.0
RECENT = 20_000


@dataclass(slots=True)
class CommitCounts:
    """What a writing thread has done so far, for whoever watches. recent: seconds and jobs of each commit, at most
    `RECENT`; who reads them takes them out."""

    commits: int = 0
    failed: int = 0
    jobs: int = 0
    seconds: float = 0.0
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def committed(self, seconds: float, jobs: int) -> None:
        self.commits += 1
        self.jobs += jobs
        self.seconds += seconds
        self.recent.append((seconds, jobs))


class GroupCommit(Generic[W]):
    """The one thread of this process that writes to a store.

    transact: called in that thread with the work that waits; does all of it in one transaction and returns a result
    each, in order, or raises and has then done nothing. where: the store, as errors name it.
    """

    def __init__(self, transact: Callable[[list[W]], Sequence[Any]], where: str) -> None:
        self._transact, self._where = transact, where
        self._queue: queue.Queue[tuple[W, Future[Any]] | None] = queue.Queue(QUEUE_LIMIT)
        self._closing = False
        self.done = 0  # transactions that ended, whichever way; grows before anyone in them is told
        self.counts = CommitCounts()
        self._thread = threading.Thread(target=self._serve, name="endcap-store-writer", daemon=True)
        self._thread.start()

    def run(self, work: W) -> Any:
        """Does the work in a transaction, perhaps with others', and returns its result once that is on disk.

        Work that raises undoes the whole transaction: its error goes to everyone in it, so check before queueing.
        TooManyError where so much waits already that this would wait long.
        """
        if self._closing or not self._thread.is_alive():
            raise self._closed()
        future: Future[Any] = Future()
        try:
            self._queue.put((work, future), timeout=QUEUE_TIMEOUT_S)
        except queue.Full:
            raise TooManyError(
                f"{QUEUE_LIMIT} writes are waiting; the disk does not keep up.",
                where=self._where,
                next_step="Wait a second and send it again; larger batches cost less than many small ones.",
            ) from None
        return self._wait(future)

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return self._queue.qsize()

    def close(self) -> None:
        """Commits what is waiting, then stops. Further jobs are refused."""
        self._closing = True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _wait(self, future: Future[Any]) -> Any:
        while True:
            try:
                return future.result(timeout=LIVENESS_S)
            except TimeoutError:
                if not self._thread.is_alive() and not future.done():
                    raise self._closed() from None

    def _serve(self) -> None:
        try:
            while (entry := self._queue.get()) is not None:
                group, more = self._collect(entry)
                if not self._commit(group) or not more:
                    return
        finally:
            self._closing = True
            self._refuse_waiting()

    def _collect(self, entry: tuple[W, Future[Any]]) -> tuple[list[tuple[W, Future[Any]]], bool]:
        """Everything that waits now, and whether to go on after it."""
        group = [entry]
        while len(group) < QUEUE_LIMIT:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                return group, False
            group.append(waiting)
        return group, True

    def _commit(self, group: list[tuple[W, Future[Any]]]) -> bool:
        """Commits the group and tells everyone in it; False if this thread has to stop."""
        started = time.perf_counter()
        try:
            results = self._transact([work for work, _ in group])
        except BaseException as error:
            self.done += 1
            self.counts.failed += 1
            for _, future in group:
                future.set_exception(error)
            return isinstance(error, Exception)
        self.done += 1
        self.counts.committed(time.perf_counter() - started, len(group))
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)
        return True

    def _refuse_waiting(self) -> None:
        while True:
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return
            if entry is not None:
                entry[1].set_exception(self._closed())

    def _closed(self) -> ServiceError:
        return ServiceError("The store is closed.", where=self._where, next_step="Open it again.")
