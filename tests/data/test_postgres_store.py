"""Postgres as it is lived with: several processes, a server that is stopped, killed and comes back, secrets."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psycopg
import pytest
from tests.servers import PostgresServer, missing_postgres

import endcap
from endcap.core.errors import CallerError, DataError, NotFoundError, ServiceError, TooManyError
from endcap.core.types import Event, EventType, Item
from endcap.data import postgres, postgres_log
from endcap.data.postgres_store import PostgresStore
from endcap.testing.conformance_store import a_table, an_event

SECRET = "s3cr3t-w0rd"

# Appends batches that overlap with those of the other writers; each line is an acknowledged event id and its writer.
WRITER = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from endcap.core.types import Event, EventType
from endcap.data.postgres_store import PostgresStore

url, schema, name = sys.argv[1:]
store = PostgresStore.open(url, schema)

def send(number):
    ids = [f"{name}-{number}", f"shared-{number}"]
    events = [Event(event_type=EventType.VIEW, user_id="u", ts_ms=1, item_id="i", event_id=i) for i in ids]
    for event_id in store.append(events).accepted:
        os.write(1, (event_id + "\\n").encode())

with ThreadPoolExecutor(3) as threads:
    list(threads.map(send, range(60)))
store.close()
"""


@pytest.fixture
def store(postgres: PostgresServer, schema: str) -> Iterator[PostgresStore]:
    with PostgresStore.open(postgres.url, schema, create=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that these tests alone may stop; it runs again when a test ends."""
    if reason := missing_postgres():
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


def test_processes_write_once_and_a_reader_misses_nothing(
    store: PostgresStore, postgres: PostgresServer, schema: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(endcap.__file__).parents[1]), "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, postgres.url, schema]
    writers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, env=environment) for name in ("a", "b")]
    seen: list[str] = []
    seq, running = 0, True
    while running:
        running = any(writer.poll() is None for writer in writers)
        newest = store.events_after(seq)
        seq = newest[-1][0] if newest else seq
        seen.extend(event.event_id for _, event in newest)
    told = [line for writer in writers for line in writer.communicate()[0].decode().split()]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == store.events().collect()["event_id"].to_list()
    assert sorted(told) == sorted(seen)
    assert len(seen) == 3 * 60
    assert seq == 3 * 60


def test_it_fails_while_the_server_is_away_and_goes_on_when_it_is_back(own_server: PostgresServer) -> None:
    with PostgresStore.open(own_server.url, "outages", create=True) as store:
        store.append([an_event("before")])
        assert store.last_seq() == 1
        own_server.stop()
        for call in (
            lambda: store.append([an_event("lost")]),
            store.last_seq,
            lambda: store.put_items([Item(item_id="i")]),
            lambda: store.append_table(a_table([f"x{n}" for n in range(2_500)])),
            lambda: store.events().collect(),
        ):
            with pytest.raises(ServiceError, match=r"cannot be reached.*See that it runs"):
                call()
        own_server.start()
        assert store.append([an_event("after"), an_event("before")]).accepted == ["after"]
        threading.Event().wait(postgres.PAUSE_S)
        assert [event.event_id for _, event in store.events_after(0)] == ["before", "after"]
        # A restart between two calls is not noticed: the connections are opened anew.
        own_server.kill()
        own_server.start()
        assert store.append([an_event("again")]).accepted == ["again"]
        assert store.last_seq() == 3
        assert store.put_items([Item(item_id="i")]) == 1
        assert store.verify() == []


def test_what_was_acknowledged_survives_a_kill_of_the_server(own_server: PostgresServer) -> None:
    told: list[str] = []
    with PostgresStore.open(own_server.url, "kills", create=True) as store:

        def record(thread: int) -> None:
            try:
                for number in range(10**6):
                    told.extend(store.append([an_event(f"{thread}-{number}")]).accepted)
            except ServiceError:
                return

        threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        while len(told) < 100:
            pass
        own_server.kill()
        for thread in threads:
            thread.join(30)
        own_server.start()
        found = store.events_after(0)
    ids = [event.event_id for _, event in found]
    assert set(told) <= set(ids)
    assert len(set(ids)) == len(ids)
    assert [seq for seq, _ in found] == list(range(1, len(ids) + 1))


class TestLostCommit:
    """The connection dies while COMMIT is under way: the answer is what the log holds."""

    @pytest.fixture
    def commit(self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
        """Kills the writing connection just before or just after the server committed."""
        how = {"before": False, "armed": True}
        execute = psycopg.Connection.execute

        def cut(connection: psycopg.Connection, query: object, *rest: object, **further: object) -> object:
            if query != "COMMIT" or connection is not store._writer or not how["armed"]:
                return execute(connection, query, *rest, **further)
            how["armed"] = False
            if not how["before"]:
                execute(connection, query)
            pid = connection.info.backend_pid
            store.database.read(lambda other: execute(other, "SELECT pg_terminate_backend(%s, 5000)", (pid,)))
            return execute(connection, "COMMIT")

        monkeypatch.setattr(psycopg.Connection, "execute", cut)
        return how

    def test_what_was_recorded_is_acknowledged(self, store: PostgresStore, commit: dict[str, bool]) -> None:
        assert store.append([an_event("a")]).accepted == ["a"]
        assert not commit["armed"]
        assert store.append([an_event("a"), an_event("b")]).accepted == ["b"]

    def test_what_was_not_is_a_failure_and_may_be_sent_again(
        self, store: PostgresStore, commit: dict[str, bool]
    ) -> None:
        commit["before"] = True
        with pytest.raises(ServiceError, match=r"not known whether it was recorded.*Send it again"):
            store.append([an_event("a")])
        assert store.last_seq() == 0
        assert store.append([an_event("a")]).accepted == ["a"]


def test_a_bulk_load_in_steps_is_whole_and_live_writers_wait_their_turn(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_log, "STEP", 1_000)
    monkeypatch.setattr(postgres_log, "PAGE", 700)
    store.append([an_event("x2100")])
    answer = store.append_table(a_table([f"x{n}" for n in range(2_500)]))
    assert (answer.n_accepted, answer.duplicates["event_id"].to_list()) == (2_499, ["x2100"])
    frame = store.events().collect()
    assert frame["seq"].to_list() == list(range(1, 2_501))
    assert frame["event_id"].to_list() == ["x2100", *(f"x{n}" for n in range(2_500) if n != 2_100)]


def test_whoever_waits_too_long_for_a_turn_is_told_to_come_again(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LOCK_TIMEOUT_S", 0.05)
    with store.database.connect() as other:
        postgres.begin(other, store.database.schema, postgres_log.LOCK)
        with pytest.raises(TooManyError, match="large load"):
            store.append([an_event("a")])
        other.execute("ROLLBACK")
    assert store.append([an_event("a")]).accepted == ["a"]


def test_a_sign_that_postgres_does_not_keep_is_refused(store: PostgresStore) -> None:
    with pytest.raises(CallerError, match="NUL"):
        store.append([an_event("good"), an_event("a", query="a\0b")])
    table = a_table(["a", "b"]).with_columns(query=pl.Series(["a\0b", None]))
    with pytest.raises(DataError, match="1 of 2 events hold a NUL"):
        store.append_table(table)
    with pytest.raises(DataError, match="NUL"):
        store.put_items([Item(item_id="a", title="a\0b")])
    assert (store.last_seq(), store.items_version()) == (0, 0)


class TestOpening:
    def test_a_missing_schema_is_not_found(self, postgres: PostgresServer, schema: str) -> None:
        with pytest.raises(NotFoundError, match="no event store"):
            PostgresStore.open(postgres.url, schema)

    def test_shops_share_a_database_and_see_nothing_of_each_other(self, postgres: PostgresServer, schema: str) -> None:
        with (
            PostgresStore.open(postgres.url, f"{schema}_a", create=True) as one,
            PostgresStore.open(f"{postgres.url}?schema={schema}_b", "ignored", create=True) as two,
        ):
            one.append([an_event("a")])
            assert two.last_seq() == 0
            assert two.append([an_event("a")]).accepted == ["a"]

    def test_another_schema_version_is_refused(self, store: PostgresStore, postgres: PostgresServer) -> None:
        with store.database.connect() as connection:
            postgres_set = "UPDATE meta SET value = '99' WHERE key = 'schema_version'"
            connection.execute(postgres_set)
        with pytest.raises(ServiceError, match="schema version 99"):
            PostgresStore.open(postgres.url, store.database.schema)

    @pytest.mark.parametrize(
        "address",
        [
            f"postgresql://who:{SECRET}@127.0.0.1:1/shop",
            f"postgresql://who:{SECRET}@[::bad/shop",
            f"postgresql://who:{SECRET}/x@127.0.0.1:1/shop",
            f"postgresql://who@127.0.0.1:1/shop?password={SECRET}&colour=red",
        ],
    )
    def test_a_password_is_in_no_error_log_or_repr(self, address: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        with pytest.raises((ServiceError, CallerError)) as refused:
            PostgresStore.open(address, "shop")
        shown = [str(refused.value), repr(refused.value), str(refused.value.__cause__), caplog.text]
        assert not [text for text in shown if SECRET in text]

    def test_an_open_store_shows_no_password(self, postgres: PostgresServer, schema: str) -> None:
        url = postgres.url.replace("endcap@", f"endcap:{SECRET}@")
        with PostgresStore.open(url, schema, create=True) as store:
            assert SECRET not in f"{store!r} {store.database!r} {store.database.where}"


def test_a_process_that_is_killed_holds_nobody_up(store: PostgresStore, postgres: PostgresServer, schema: str) -> None:
    """Its transaction ends with its connection, and with it the lock."""
    text = "import sys, time; from endcap.data.postgres import Database, begin\n"
    text += "database = Database(sys.argv[1], sys.argv[2], 1); connection = database.connect()\n"
    text += "begin(connection, sys.argv[2], 'events'); print('held', flush=True); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(Path(endcap.__file__).parents[1])}
    command = [sys.executable, "-c", text, postgres.url, schema]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGKILL)
    event = Event(event_type=EventType.VIEW, user_id="u", ts_ms=1, item_id="i", event_id="a")
    assert store.append([event]).accepted == ["a"]
