"""The contract of a store: an append-only event log, the catalogue, the users, and what was refused.

`data.sqlite_store` keeps it in the workspace, `data.postgres_store` in a database that several machines share;
`data.open_store` picks one by its URL.

Every event has a `seq`, a number that grows in the order in which events became visible: who has read up to a seq
misses nothing by reading on from there. What was acknowledged is on disk. An event id is recorded once, whichever way
it comes and however often, so an append that failed may be sent again. Every method may be called from any thread.

What every method may raise: ServiceError where the disk or the database fails or is away, and then nothing of the call
is acknowledged; CallerError where the store was opened for reading and the method writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl

from endcap.core.types import Event, Item
from endcap.data.commits import GroupCommit


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch. accepted, duplicates: event ids, in the order given. last_seq: the log's newest."""

    accepted: list[str]
    duplicates: list[str]
    last_seq: int


@dataclass(frozen=True, slots=True, eq=False)
class AppendedTable:
    """What became of a table. duplicates: the rows, as they were given, whose event id was there already."""

    n_accepted: int
    n_duplicates: int
    duplicates: pl.DataFrame
    last_seq: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows in each part of the store. events: all of them; live_events: those not in segments."""

    events: int
    live_events: int
    segments: int
    items: int
    users: int
    quarantined: int


class Store(ABC):
    """One shop's store, opened. Close it, or use it as a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def where(self) -> str:
        """The place that it is kept in, without user and password: equal for two that are one."""

    @abstractmethod
    def close(self) -> None:
        """Commit what is waiting and let go of files and connections. Closing twice is harmless."""

    @property
    @abstractmethod
    def commits(self) -> GroupCommit[Any] | None:
        """The thread that writes, with its counts; None where the store was opened for reading."""

    @abstractmethod
    def append(self, events: Sequence[Event]) -> Appended:
        """Record events durably. Those whose event_id is recorded already are left out and named in the answer.

        An event without an event_id gets a fresh one. Concurrent calls share commits. CallerError if an event is not
        valid, TooManyError if too much waits to be written: then nothing of the batch is recorded.
        """

    @abstractmethod
    def append_table(self, frame: pl.DataFrame) -> AppendedTable:
        """Record a table with the columns of `tables.EVENTS` durably; all of it becomes visible at one moment (on
        Postgres in steps of 50,000 rows, so that nobody who writes beside it waits long).

        Rows without event_id get a fresh one. A row whose event_id came earlier, in this table or in the store, is
        returned in `duplicates` for the caller to quarantine. Columns that EVENTS does not have are not kept.
        DataError if a required column has gaps or a value of the wrong type: then nothing is recorded.
        """

    @abstractmethod
    def events(self, since_seq: int = 0) -> pl.LazyFrame:
        """Every event with seq > since_seq, in order of seq: the columns of `tables.EVENTS`, then `seq` (Int64).

        A snapshot of this moment, read when it is collected.
        """

    @abstractmethod
    def events_after(self, seq: int) -> list[tuple[int, Event]]:
        """The events after a seq, with theirs, in order: how a running process catches up."""

    @abstractmethod
    def events_of(self, user_ids: Sequence[str], since_seq: int = 0) -> list[tuple[int, Event]]:
        """The events of some users after a seq, with theirs, in order. Found by an index, not by reading the log."""

    @abstractmethod
    def last_seq(self) -> int:
        """The newest event's seq; 0 in an empty log."""

    @abstractmethod
    def position(self) -> tuple[int, int]:
        """last_seq and items_version: what is compared before every answer, and cheap to ask."""

    @abstractmethod
    def counts(self) -> Counts: ...

    @abstractmethod
    def fingerprint(self) -> str:
        """32 hex digits that change whenever events, items or users do; equal for equal histories of writing.

        Taken from the checksums of bulk loads, the number and id of the newest live event, and the digests chained
        over what was put into the catalogue and the users; not from the content of each live event.
        """

    @abstractmethod
    def put_items(self, items: pl.DataFrame | Sequence[Item]) -> int:
        """Insert or change items by item_id; returns how many rows were given. DataError if one is not valid.

        Where an item is known, columns that a table lacks are left as they are; an `Item` replaces all of it.
        """

    @abstractmethod
    def patch_items(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Change only the fields that each row names, by its item_id; all of the rows or none. Returns how many rows.

        Fields are those of `Item`, of the same types. An item that is not known is inserted, with defaults for the
        rest. DataError if a row has no item_id, another field, or a value of the wrong type.
        """

    def delete_items(self, item_ids: Sequence[str]) -> int:
        """Hide items for good; returns how many ids were given.

        The row stays with availability `hidden`, because the log and past orders refer to it, and because an item
        that a release knows and the catalogue does not would be shown by the release's own word. An id that is not in
        the catalogue is inserted hidden, for the log may know it. Shown again only where a later write of the shop
        sets its availability.
        """
        return self.patch_items([{"item_id": item_id, "availability": "hidden"} for item_id in item_ids])

    @abstractmethod
    def items(self) -> pl.DataFrame:
        """Columns of `tables.ITEMS`, in the order in which the items first came."""

    @abstractmethod
    def item(self, item_id: str) -> Item | None: ...

    @abstractmethod
    def titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        """item_id -> title of those that are in the catalogue."""

    @abstractmethod
    def availability(self) -> list[tuple[str, str]]:
        """(item_id, availability) of every item."""

    @abstractmethod
    def items_version(self) -> int:
        """How often the catalogue was written; 0 before the first time."""

    @abstractmethod
    def begin_items_at(self, version: int) -> None:
        """Count the catalogue's versions on from one: for a copy of a catalogue that had as many."""

    @abstractmethod
    def items_changed(self, since_version: int) -> tuple[int, list[Item]]:
        """The catalogue's version, and the items written after an earlier one: how a running process catches up.

        Found by an index: costs what changed, not what there is. Deleted items come with availability `hidden`.
        """

    @abstractmethod
    def put_users(self, users: pl.DataFrame) -> int:
        """Insert or change users by user_id, as `put_items` does; returns how many rows were given."""

    @abstractmethod
    def users(self) -> pl.DataFrame:
        """Columns of `tables.USERS`, in the order in which the users first came."""

    @abstractmethod
    def user(self, user_id: str) -> dict[str, str] | None:
        """The attributes of a user."""

    @abstractmethod
    def quarantine(self, frame: pl.DataFrame) -> int:
        """Keep refused rows (columns of `tables.QUARANTINE`) durably; returns how many."""

    @abstractmethod
    def quarantined(self) -> pl.LazyFrame:
        """Every refused row, oldest first."""

    @abstractmethod
    def quarantine_counts(self) -> dict[str, int]:
        """rule -> refused rows, the most frequent first."""

    @abstractmethod
    def copy_to(self, folder: Path) -> None:
        """Write the store of one moment into an empty folder, as a SQLite store, while others go on writing.

        Events keep their seqs. The time of it is bounded by the disk, the memory by a part of the log.
        """

    @abstractmethod
    def verify(self) -> list[str]:
        """A sentence for each thing that is damaged; reads every byte of the store."""
