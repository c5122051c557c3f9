"""Group commit: many threads write, one thread commits for all who wait.

A commit costs one flush to disk however much it holds. So every job that arrives while a commit is being flushed
waits, and the next commit takes them all; with one caller it is one job a commit, with sixteen up to sixteen.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import apsw

from endcap.core.errors import ServiceError
from endcap.data.database import translated

T = TypeVar("T")

QUEUE_LIMIT = 1024
QUEUE_TIMEOUT_S = 30.0
LIVENESS_S = 1.0
RECENT = 20_000

Job = Callable[[apsw.Connection], Any]
_Entry = tuple[Job, "Future[Any]"]


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


class GroupCommit:
    """The one thread that writes to a connection.

    after_rollback: called in the writing thread with the connection after a commit failed, to put right whatever
    the jobs changed in memory.
    """

    def __init__(
        self, connection: apsw.Connection, where: Path, *, after_rollback: Callable[[apsw.Connection], None]
    ) -> None:
        self._connection, self._where, self._after_rollback = connection, where, after_rollback
        self._queue: queue.Queue[_Entry | None] = queue.Queue(QUEUE_LIMIT)
        self._closing = False
        self.counts = CommitCounts()
        self._thread = threading.Thread(target=self._serve, name="endcap-store-writer", daemon=True)
        self._thread.start()

    def run(self, job: Callable[[apsw.Connection], T]) -> T:
        """Runs the job in a transaction, perhaps with others', and returns once that is on disk.

        A job that raises undoes the whole transaction: its error goes to everyone in it, so check before queueing.
        """
        if self._closing or not self._thread.is_alive():
            raise self._closed()
        future: Future[T] = Future()
        try:
            self._queue.put((job, future), timeout=QUEUE_TIMEOUT_S)
        except queue.Full:
            raise ServiceError(
                f"{QUEUE_LIMIT} writes are waiting; the disk does not keep up.",
                where=str(self._where),
                next_step="Send larger batches, or fewer at once.",
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

    def _wait(self, future: Future[T]) -> T:
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

    def _collect(self, entry: _Entry) -> tuple[list[_Entry], bool]:
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

    def _commit(self, group: list[_Entry]) -> bool:
        """Commits the group and tells everyone in it; False if this thread has to stop."""
        started = time.perf_counter()
        try:
            results = self._transact([job for job, _ in group])
        except BaseException as error:
            self.counts.failed += 1
            for _, future in group:
                future.set_exception(error)
            return isinstance(error, Exception)
        self.counts.committed(time.perf_counter() - started, len(group))
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)
        return True

    def _transact(self, jobs: list[Job]) -> list[Any]:
        with translated(self._where):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                results = [job(self._connection) for job in jobs]
                self._connection.execute("COMMIT")
            except BaseException:
                self._undo()
                raise
        return results

    def _undo(self) -> None:
        try:
            # SQLite has rolled back by itself after some errors, such as a full disk.
            if not self._connection.getautocommit():
                self._connection.execute("ROLLBACK")
        finally:
            self._after_rollback(self._connection)

    def _refuse_waiting(self) -> None:
        while True:
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return
            if entry is not None:
                entry[1].set_exception(self._closed())

    def _closed(self) -> ServiceError:
        return ServiceError("The store is closed.", where=str(self._where), next_step="Open it again.")
