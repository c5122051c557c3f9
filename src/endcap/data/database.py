"""The SQLite file of a workspace: its tables, how it is opened, and who may write.

SQLite runs in WAL mode, so readers in any process go on while one writer commits, and with synchronous=FULL, so that
a commit that returned survives a power cut. The writer holds an exclusive lock on a second, empty SQLite file for as
long as it is open: SQLite's own locks are released by the system when a process dies, on every platform.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import polars as pl

from endcap.core.artifacts import flush
from endcap.core.errors import CallerError, EndcapError, NotFoundError, ServiceError
from endcap.data.segments import SEGMENTS, SegmentFiles

SCHEMA_VERSION = 3
FILE = "store.sqlite"
LOCK = "writer.lock"
BUSY_TIMEOUT_MS = 10_000

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, event_type TEXT NOT NULL, user_id TEXT NOT NULL,
    ts_ms INTEGER NOT NULL, item_id TEXT, session_id TEXT, quantity REAL, price REAL, currency TEXT, value REAL,
    query TEXT, placement TEXT, recommendation_id TEXT) STRICT;
CREATE INDEX events_by_user ON events (user_id, seq);
CREATE TABLE segments (
    last_seq INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, name TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, ids_bytes INTEGER NOT NULL, ids_sha256 TEXT NOT NULL) STRICT;
CREATE TABLE items (
    position INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, description TEXT NOT NULL,
    price REAL, currency TEXT, categories TEXT NOT NULL, brand TEXT, attributes TEXT NOT NULL, images TEXT NOT NULL,
    audio TEXT NOT NULL, availability TEXT NOT NULL, created_ms INTEGER, version INTEGER NOT NULL) STRICT;
CREATE INDEX items_by_version ON items (version);
CREATE TABLE users (
    position INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE, attributes TEXT NOT NULL) STRICT;
"""


class NotNowError(ServiceError):
    """The store may be whole, but is not this process's to open: another writes to it, or another version wrote it."""


def _number_writes_of_items(connection: apsw.Connection, folder: Path) -> None:
    """1 -> 2: items know the write they came with; those that are there count as written by the newest."""
    connection.execute("""
        ALTER TABLE items ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
        UPDATE items SET version = coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'items_version'), 0);
        CREATE INDEX items_by_version ON items (version);
        CREATE INDEX events_by_user ON events (user_id, seq);
    """)


def _hash_ids_by_xxh3(connection: apsw.Connection, folder: Path) -> None:
    """2 -> 3: the ids of segments are hashed by XXH3; they were by blake2b."""
    SegmentFiles(folder).hash_again(connection)


# schema version -> what makes the next one of it, inside the transaction that is open
_MIGRATIONS = {1: _number_writes_of_items, 2: _hash_ids_by_xxh3}


@contextmanager
def translated(where: Path) -> Iterator[None]:
    """Turns the errors of SQLite and of the file system into ServiceError, naming the file and what to do."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise ServiceError(
            f"The store is damaged: {error}.", where=str(where), next_step="Restore it from a backup."
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise NotNowError(
            f"The store is busy: {error}.", where=str(where), next_step="Try again, or stop what else writes to it."
        ) from error
    except apsw.FullError as error:
        raise ServiceError(
            f"The disk is full: {error}.", where=str(where), next_step="Free some space; nothing written was lost."
        ) from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ServiceError(
            f"A file cannot be read or written: {error}.",
            where=str(where),
            next_step="See that the disk works and has space.",
        ) from error
    except apsw.Error as error:
        raise ServiceError(
            f"SQLite failed: {type(error).__name__}: {error}.",
            where=str(where),
            next_step="See that the folder is on a working, writable disk.",
        ) from error


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flush(folder.parent)
    except OSError as error:
        raise CallerError(
            f"The folder cannot be made: {error.strerror}.", where=str(folder), next_step="Choose another folder."
        ) from error


def lock_for_writing(folder: Path) -> apsw.Connection:
    """Holds the workspace's writer lock until the returned connection is closed."""
    lock = apsw.Connection(str(folder / LOCK))
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except apsw.BusyError as error:
        lock.close()
        raise NotNowError(
            "Another process or Shop is writing to this workspace.",
            where=str(folder),
            next_step="Stop the `endcap serve` or `endcap ingest` that runs on it; what only reads may run beside it.",
        ) from error
    return lock


def connect_writer(folder: Path) -> apsw.Connection:
    """The one connection that writes; creates the tables where the file is new."""
    path = folder / FILE
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        with connection:
            if not connection.execute("SELECT count(*) FROM sqlite_master").get:
                _refuse_lost_database(folder)
                connection.execute(_TABLES)
                connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
            _migrate(connection, folder)
        _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def check_in_place(connection: apsw.Connection, folder: Path) -> None:
    """ServiceError where the file was deleted or replaced since it was opened: what is written to it would be gone."""
    has_moved = ctypes.c_int(0)
    connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(has_moved))
    if has_moved.value:
        raise ServiceError(
            "The store's file was deleted or replaced while it was open.",
            where=str(folder / FILE),
            next_step="Stop the server, restore the workspace from a backup, and start it again.",
        )


def connect_reader(folder: Path) -> apsw.Connection:
    """A connection that cannot write. Each thread needs its own: a shared one would serialise the threads."""
    path = folder / FILE
    if not path.is_file():
        raise NotFoundError(
            "There is no event store here.", where=str(folder), next_step="Check the folder, or create the workspace."
        )
    # Opened read-write, because the first reader of a WAL file has to create its shared memory.
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA query_only=ON")
        _check_version(connection, path)
    except (apsw.Error, EndcapError):
        connection.close()
        raise
    return connection


def copy(source: apsw.Connection, folder: Path) -> None:
    """Write the database of one moment into another folder; whoever writes to the source goes on writing."""
    with translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with closing(apsw.Connection(str(folder / FILE))) as target, target.backup("main", source, "main") as backup:
            backup.step(-1)
        settle(folder)


def settle(folder: Path) -> None:
    """Leave the database as one file that reading does not change, until the next writer opens it."""
    with translated(folder):
        with closing(apsw.Connection(str(folder / FILE))) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        flush(folder / FILE)
        flush(folder)


def get_meta(connection: apsw.Connection, key: str, default: str) -> str:
    found: str | None = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).get
    return default if found is None else found


def set_meta(connection: apsw.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def last_seq(connection: apsw.Connection) -> int:
    """The greatest seq given out so far, 0 in an empty log."""
    last: int = connection.execute(
        "SELECT max((SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(last_seq), 0) FROM segments))"
    ).get
    return last


def _refuse_lost_database(folder: Path) -> None:
    """A new database beside old segments would own none of them, and the sweep would delete every event."""
    if any((folder / SEGMENTS).glob("[0-9]*.parquet")):
        raise ServiceError(
            f"There are segments here but no {FILE}.",
            where=str(folder),
            next_step=f"Restore {FILE} from a backup, or move the folder {SEGMENTS!r} away.",
        )


def is_older(folder: Path) -> bool:
    """Whether the store's schema is one that the next writer brings up to date."""
    path = folder / FILE
    if not path.is_file():
        return False
    with translated(folder), closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        return _schema_version(connection) in _MIGRATIONS


def _migrate(connection: apsw.Connection, folder: Path) -> None:
    """Bring an older schema up to date, inside the transaction that is open."""
    while (step := _MIGRATIONS.get(version := _schema_version(connection))) is not None:
        step(connection, folder)
        set_meta(connection, "schema_version", str(version + 1))


def _schema_version(connection: apsw.Connection) -> int:
    """0 where the file is not an event store."""
    if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").get:
        return 0
    return int(get_meta(connection, "schema_version", "0"))


def _check_version(connection: apsw.Connection, path: Path) -> None:
    if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").get:
        raise ServiceError(
            "The file is not an event store.", where=str(path), next_step="Move it away, or choose another folder."
        )
    version = _schema_version(connection)
    if version != SCHEMA_VERSION:
        raise NotNowError(
            f"The store has schema version {version}; this version of Endcap reads {SCHEMA_VERSION}.",
            where=str(path),
            next_step="Install the version of Endcap that wrote it.",
        )
