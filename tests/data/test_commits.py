"""Group commit: shared transactions, errors for everyone concerned, and no waiter left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest

from endcap.core.errors import ServiceError, TooManyError
from endcap.data import commits as commits_module
from endcap.data.commits import GroupCommit
from endcap.data.sqlite_store import transact


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    opened = apsw.Connection(str(tmp_path / "test.sqlite"))
    opened.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
    yield opened
    opened.close()


def committing(connection: apsw.Connection, folder: Path, after_rollback=lambda _: None) -> GroupCommit:
    return GroupCommit(partial(transact, connection, folder, after_rollback), str(folder))


def insert(number: int):
    def job(connection: apsw.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return job


def stored(connection: apsw.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT n FROM numbers ORDER BY n")]


class Gate:
    """A job that holds the writer until `open` is set, so that what comes after it forms one group."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, connection: apsw.Connection) -> None:
        self.entered.set()
        assert self.open.wait(10)


def run_all(commits: GroupCommit, jobs: list) -> list:
    """Runs each job in a thread of its own behind a gate; returns results or errors, in the order of the jobs."""
    gate, outcomes = Gate(), [None] * len(jobs)

    def attempt(position: int) -> None:
        try:
            outcomes[position] = commits.run(jobs[position])
        except BaseException as error:
            outcomes[position] = error

    first = threading.Thread(target=commits.run, args=(gate,))
    first.start()
    assert gate.entered.wait(10)
    threads = [threading.Thread(target=attempt, args=(position,)) for position in range(len(jobs))]
    for thread in threads:
        thread.start()
    while commits._queue.qsize() < len(jobs):
        pass
    gate.open.set()
    for thread in [first, *threads]:
        thread.join(10)
        assert not thread.is_alive()
    return outcomes


def test_each_caller_gets_its_own_result(connection: apsw.Connection, tmp_path: Path) -> None:
    commits = committing(connection, tmp_path)
    assert run_all(commits, [insert(number) for number in range(20)]) == list(range(20))
    commits.close()
    assert stored(connection) == list(range(20))


def test_waiting_jobs_share_one_transaction(connection: apsw.Connection, tmp_path: Path) -> None:
    commits = committing(connection, tmp_path)
    finished: list[int] = []

    def count() -> bool:
        finished.append(1)
        return False  # True would turn the commit into a rollback

    connection.set_commit_hook(count)
    run_all(commits, [insert(number) for number in range(12)])
    commits.close()
    assert stored(connection) == list(range(12))
    assert finished == [1, 1]  # the gate, then all twelve together


def test_a_failed_commit_is_undone_and_told_to_everyone_in_it(connection: apsw.Connection, tmp_path: Path) -> None:
    rollbacks: list[int] = []
    commits = committing(connection, tmp_path, lambda _: rollbacks.append(1))
    outcomes = run_all(commits, [insert(1), insert(2), insert(1), insert(3)])
    assert all(isinstance(outcome, ServiceError) for outcome in outcomes)
    assert rollbacks == [1]
    assert commits.run(insert(7)) == 7
    commits.close()
    assert stored(connection) == [7]


def test_waiters_are_released_when_the_writing_thread_dies(connection: apsw.Connection, tmp_path: Path) -> None:
    def die(_: apsw.Connection) -> None:
        raise SystemExit

    commits = committing(connection, tmp_path)
    outcomes = run_all(commits, [insert(1), die])
    assert all(isinstance(outcome, SystemExit) for outcome in outcomes)
    commits._thread.join(10)
    with pytest.raises(ServiceError, match="closed"):
        commits.run(insert(2))
    commits.close()
    assert stored(connection) == []


def test_closing_commits_what_waits_and_refuses_what_comes(connection: apsw.Connection, tmp_path: Path) -> None:
    commits = committing(connection, tmp_path)
    gate = Gate()
    threads = [threading.Thread(target=commits.run, args=(job,)) for job in (gate, insert(1))]
    threads[0].start()
    assert gate.entered.wait(10)
    threads[1].start()
    while not commits._queue.qsize():
        pass
    gate.open.set()
    commits.close()
    assert stored(connection) == [1]
    with pytest.raises(ServiceError, match="closed"):
        commits.run(insert(2))
    for thread in threads:
        thread.join(10)


def test_a_full_queue_is_refused_and_what_waits_is_done(
    connection: apsw.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits_module, "QUEUE_LIMIT", 2)
    commits = committing(connection, tmp_path)
    gate = Gate()
    threads = [threading.Thread(target=commits.run, args=(gate,))]
    threads[0].start()
    assert gate.entered.wait(10)
    for number in (1, 2):
        threads.append(threading.Thread(target=commits.run, args=(insert(number),)))
        threads[-1].start()
        while commits._queue.qsize() < number:
            pass
    with pytest.raises(TooManyError, match="2 writes are waiting") as refused:
        commits.run(insert(3))
    assert (refused.value.http_status, refused.value.retry_after_s) == (429, 1)
    gate.open.set()
    for thread in threads:
        thread.join(10)
    assert commits.run(insert(4)) == 4
    commits.close()
    assert stored(connection) == [1, 2, 4]
