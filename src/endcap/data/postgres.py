"""Connections to Postgres: opened with short timeouts, opened again when the server comes back, errors in sentences.

Each shop has a schema of its own in the database. A password in the URL goes to the driver and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from endcap.core.errors import CallerError, EndcapError, MissingExtraError, NotFoundError, ServiceError, TooManyError

try:
    import psycopg
    from psycopg import errors
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg_pool import ConnectionPool, PoolClosed, TooManyRequests
except ModuleNotFoundError as error:
    raise MissingExtraError("psycopg", "postgres") from error

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA_VERSION = 1
CONNECT_TIMEOUT_S = 2
LOCK_TIMEOUT_S = 5
WAITING_LIMIT = 256
# After an attempt to connect failed, calls fail at once for so long instead of queueing up behind the next attempt.
PAUSE_S = 0.5

_SAFE = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "application_name": "endcap",
}

_TABLES = """
CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);
CREATE TABLE events (
    seq bigint PRIMARY KEY, event_id text NOT NULL UNIQUE, event_type text NOT NULL, user_id text NOT NULL,
    ts_ms bigint NOT NULL, item_id text, session_id text, quantity double precision, price double precision,
    currency text, value double precision, query text, placement text, recommendation_id text);
CREATE INDEX events_by_user ON events (user_id, seq);
CREATE TABLE items (
    item_id text PRIMARY KEY, title text NOT NULL, description text NOT NULL, price double precision, currency text,
    categories text NOT NULL, brand text, attributes text NOT NULL, images text NOT NULL, audio text NOT NULL,
    availability text NOT NULL, created_ms bigint, version bigint NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY UNIQUE);
CREATE INDEX items_by_version ON items (version);
CREATE TABLE users (
    user_id text PRIMARY KEY, attributes text NOT NULL, position bigint GENERATED ALWAYS AS IDENTITY UNIQUE);
CREATE TABLE quarantine (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "table" text NOT NULL, rule text NOT NULL,
    reason text NOT NULL, source text NOT NULL, line bigint, raw text NOT NULL);
INSERT INTO meta VALUES ('schema_version', '1');
"""


class Database:
    """One schema of a Postgres database.

    where: its address without user and password, as errors name it.
    """

    def __init__(self, url: str, schema: str, connections: int) -> None:
        try:
            url, self.schema = _without_schema(url, schema)
            given = conninfo_to_dict(url)
            # Part of a password that was not percent-encoded may look like a port.
            int(str(given.get("port", "0")).replace(",", ""))
            self._conninfo = make_conninfo(url, **{key: text for key, text in _SAFE.items() if key not in given})
        except (psycopg.Error, ValueError):
            # The driver's own words may quote a part of the password.
            raise CallerError(
                "The URL of the store cannot be read.",
                where="[store] url",
                next_step="Write postgresql://user:password@host:5432/database; percent-encode signs such as @ and /.",
            ) from None
        server = f"{given.get('host', 'localhost')}:{given.get('port', 5432)}"
        self.where = f"postgresql://{server}/{given.get('dbname', '')} schema {self.schema}"
        self._attempts = connections + 1
        self._down_until_s = 0.0
        self._lock = threading.Lock()
        self._pool = ConnectionPool(
            self._conninfo,
            kwargs={"autocommit": True},
            configure=self._configure,
            min_size=0,
            max_size=connections,
            max_waiting=WAITING_LIMIT,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=1.0,
            open=False,
            name=f"endcap-{self.schema}",
        )

    def __repr__(self) -> str:
        return f"Database({self.where})"

    def open(self, *, create: bool) -> None:
        """Make the tables where they are missing and `create` is set. NotFoundError where they are and it is not."""
        with self.translated(), self.connect() as connection:
            if create:
                self._create(connection)
            found = connection.execute("SELECT to_regclass('meta') IS NOT NULL").fetchone()
            if not found or not found[0]:
                raise NotFoundError(
                    "There is no event store here.", where=self.where, next_step="Check [store] url and schema."
                )
            version = get_meta(connection, "schema_version", "0")
            if version != str(SCHEMA_VERSION):
                raise ServiceError(
                    f"The store has schema version {version}; this version of Endcap reads {SCHEMA_VERSION}.",
                    where=self.where,
                    next_step="Install the version of Endcap that wrote it.",
                )
        self._pool.open()

    def close(self) -> None:
        self._pool.close()

    def connect(self) -> Connection:
        """A connection of the caller's own, in autocommit."""
        connection: Connection = psycopg.connect(self._conninfo, autocommit=True)
        self._configure(connection)
        return connection

    def read(self, job: Callable[[Connection], T]) -> T:
        """The job's answer. Must only read: it is run again where the connection turns out to be dead."""
        with self.translated():
            for _ in range(self._attempts):
                with self._pooled() as connection:
                    try:
                        return job(connection)
                    except psycopg.OperationalError:
                        if not connection.broken:
                            raise
            with self.connect() as connection:
                return job(connection)

    def write(self, job: Callable[[Connection], T], lock: str) -> T:
        """The answer of a job that ran in a transaction, once that is on disk. Whoever names the same lock takes
        turns. ServiceError where the connection was lost while committing: it may be recorded or not."""
        with self.translated(), self.connect() as connection:
            begin(connection, self.schema, lock)
            answer = job(connection)
            try:
                connection.execute("COMMIT")
            except psycopg.OperationalError as error:
                raise self.unknown() from error
            return answer

    def unknown(self) -> ServiceError:
        return ServiceError(
            "The connection was lost while the commit was under way; it is not known whether it was recorded.",
            where=self.where,
            next_step="Send it again: what is recorded already is left out.",
        )

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turns the driver's errors into ours. They name no value of a row and no password."""
        try:
            yield
        except EndcapError:
            raise
        except (TooManyRequests, errors.TooManyConnections) as error:
            raise TooManyError(
                "Too many calls wait for a connection.", where=self.where, next_step="Try again in a second."
            ) from error
        except errors.LockNotAvailable as error:
            raise TooManyError(
                "Another process is writing a large load.", where=self.where, next_step="Try again in a second."
            ) from error
        except errors.DiskFull as error:
            raise ServiceError(
                "The disk of the database is full.",
                where=self.where,
                next_step="Free some space; nothing written was lost.",
            ) from error
        except PoolClosed:
            raise ServiceError("The store is closed.", where=self.where, next_step="Open it again.") from None
        except psycopg.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: psycopg.Error) -> ServiceError:
        said = error.diag.message_primary or (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, psycopg.OperationalError):
            return ServiceError(
                f"The database cannot be reached: {said}.",
                where=self.where,
                next_step="See that it runs; this connects again by itself.",
            )
        return ServiceError(
            f"The database failed: {type(error).__name__}: {said}.",
            where=self.where,
            next_step="See the log of the database.",
        )

    @contextmanager
    def _pooled(self) -> Iterator[Connection]:
        """A connection of the pool, which gives up soon and, while the server is away, at once."""
        if time.monotonic() < self._down_until_s:
            raise psycopg.OperationalError("the last attempt to connect failed a moment ago")
        try:
            connection = self._pool.getconn()
        except (TooManyRequests, PoolClosed):
            raise
        except psycopg.OperationalError:
            self._down_until_s = time.monotonic() + PAUSE_S
            raise
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def _configure(self, connection: Connection) -> None:
        # The name is one that [store] schema allows: letters, digits and underscores.
        connection.execute(
            f'SET search_path TO "{self.schema}"; SET synchronous_commit TO on;'
            f" SET lock_timeout TO '{LOCK_TIMEOUT_S}s'; SET TIME ZONE 'UTC'".encode()
        )

    def _create(self, connection: Connection) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('endcap'))")
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"'.encode())
            found = connection.execute("SELECT to_regclass('meta') IS NULL").fetchone()
            if found and found[0]:
                connection.execute(_TABLES)


def begin(connection: Connection, schema: str, lock: str) -> None:
    """Begin a transaction and take a lock that is held until it has ended and its rows can be seen."""
    held = f"SELECT pg_advisory_xact_lock(hashtext('endcap {schema}'), hashtext('{lock}'))"
    connection.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED; {held}".encode())


def rollback(connection: Connection) -> None:
    """End a transaction that failed; a connection that is dead has ended it already."""
    with suppress(psycopg.Error):
        connection.execute("ROLLBACK")


def get_meta(connection: Connection, key: str, default: str) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = %s", (key,)).fetchone()
    return default if row is None else str(row[0])


def set_meta(connection: Connection, key: str, value: str) -> None:
    connection.execute(
        "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
    )


def _without_schema(url: str, schema: str) -> tuple[str, str]:
    """A `schema=` among the URL's parameters is ours, not the driver's, and wins over the setting."""
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    named = [text for key, text in given if key == "schema"]
    if not named:
        return url, schema
    rest = urlencode([(key, text) for key, text in given if key != "schema"])
    if not named[0].replace("_", "a").isalnum() or not named[0].isascii():
        raise CallerError("The schema in the URL is not made of letters, digits and underscores.", where="[store] url")
    return urlunsplit(parts._replace(query=rest)), named[0].lower()
