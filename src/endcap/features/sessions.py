"""Whose an anonymous act is. A session acts under a user id of its own, `session:<id>`, until somebody logs in to it.

The rule, in the log's order: an anonymous event belongs to the user of the latest login of its session before it, else
of the first login after it, else to the session. So an event changes hands once at most: with the first login of its
session. `Fold` is the rule one event at a time, for states that live; `owned` is the same for a whole log at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.core.types import SESSION_PREFIX, Event, EventType, Int32Array, session_user
from endcap.features.ids import Vocabulary, key64, keys64

LOGIN = EventType.LOGIN.value
KEYS, ROWS, USERS = "login_sessions.npy", "login_rows.npy", "login_users.parquet"


class Fold(ABC):
    """The rule, one event at a time. What is known so far is kept by whoever fills in the rest."""

    def fold(self, event: Event) -> None:
        session = event.session_id
        if event.event_type is not EventType.LOGIN:
            self._add(self._owner(event.user_id), event)
            return
        self._add(event.user_id, event)
        if session is None or event.is_anonymous:
            return
        is_first = self._user_of(session) is None
        self._log_in(session, event.user_id)
        if is_first:
            self._move(session_user(session), event.user_id)

    def _owner(self, user_id: str) -> str:
        """The user themselves, or for a session whoever it belongs to."""
        if not user_id.startswith(SESSION_PREFIX):
            return user_id
        return self._user_of(user_id.removeprefix(SESSION_PREFIX)) or user_id

    @abstractmethod
    def _user_of(self, session_id: str) -> str | None:
        """The user of the session's latest login."""

    @abstractmethod
    def _log_in(self, session_id: str, user_id: str) -> None:
        """The session is the user's from now on."""

    @abstractmethod
    def _move(self, session: str, user_id: str) -> None:
        """All that the session did becomes the user's, after what they did in the same millisecond."""

    @abstractmethod
    def _add(self, owner: str, event: Event) -> None:
        """The event is the owner's. A login only makes them known."""


@dataclass(frozen=True, slots=True, eq=False)
class Logins:
    """The latest login of each session. keys: `key64` of the sessions, ascending, uint64 [s]. rows: the place of its
    user among `users`, int32 [s]."""

    keys: NDArray[np.uint64]
    rows: Int32Array
    users: Vocabulary

    @classmethod
    def none(cls) -> Logins:
        return cls(np.empty(0, np.uint64), np.empty(0, np.int32), Vocabulary([]))

    @classmethod
    def build(cls, log: pl.LazyFrame) -> Logins:
        """From canonical events in the log's order."""
        latest = _logins(log).unique("session_id", keep="last", maintain_order=True)
        users = Vocabulary(latest["user_id"].unique(maintain_order=True).to_list())
        keys = keys64(latest["session_id"].to_list())
        order = np.argsort(keys)
        return cls(keys[order], users.positions(latest["user_id"].to_list())[order], users)

    def of(self, session_id: str) -> str | None:
        """The user of a session's latest login; None where nobody logged in."""
        if not len(self.keys):
            return None
        key = np.uint64(key64(session_id))
        place = int(np.searchsorted(self.keys, key))
        return self.users.ids[self.rows[place]] if place < len(self.keys) and self.keys[place] == key else None

    def save(self, folder: Path) -> None:
        np.save(folder / KEYS, self.keys)
        np.save(folder / ROWS, self.rows)
        self.users.save(folder / USERS)

    @classmethod
    def load(cls, folder: Path) -> Logins:
        """Releases of before there were logins have none."""
        if not (folder / USERS).exists():
            return cls.none()
        return cls(
            np.load(folder / KEYS, mmap_mode="r", allow_pickle=False),
            np.load(folder / ROWS, mmap_mode="r", allow_pickle=False),
            Vocabulary.load(folder / USERS),
        )


def owned(log: pl.LazyFrame) -> pl.LazyFrame:
    """A log, in its order, in which every anonymous event has the user id of whom it belongs to. What a first login
    brought stands where the login does, in the order of time. A log without logins is left as it is."""
    logins = _logins(log)
    if not logins.height:
        return log
    placed = log.with_row_index("place")
    anonymous = (
        placed.filter(pl.col("user_id") == pl.lit(SESSION_PREFIX) + pl.col("session_id"))
        .select("place", "session_id")
        .join(logins.lazy().select("session_id").unique(), on="session_id", how="semi")
        .collect()
        .sort("place")
    )
    by_place = logins.select("session_id", "place", owner="user_id")
    before = anonymous.join_asof(by_place, on="place", by="session_id", check_sortedness=False)
    first = by_place.unique("session_id", keep="first", maintain_order=True)
    after = before.join(first.rename({"place": "arrival", "owner": "later"}), on="session_id", how="left")
    owners = after.select(
        "place",
        pl.coalesce("owner", "later").alias("owner"),
        pl.when(pl.col("owner").is_null()).then("arrival").otherwise("place").alias("arrival"),
    )
    return (
        placed.join(owners.lazy(), on="place", how="left", maintain_order="left")
        .with_columns(user_id=pl.coalesce("owner", "user_id"), arrival=pl.coalesce("arrival", "place"))
        .sort("arrival", "ts_ms", "place")
        .drop("owner", "arrival", "place")
    )


def _logins(log: pl.LazyFrame) -> pl.DataFrame:
    """session_id, user_id, place in the log, of every login that says whose a session is."""
    return (
        log.with_row_index("place")
        .filter(
            pl.col("event_type") == LOGIN,
            pl.col("session_id").is_not_null(),
            pl.col("user_id") != pl.lit(SESSION_PREFIX) + pl.col("session_id"),
        )
        .select("session_id", "user_id", "place")
        .collect()
    )
