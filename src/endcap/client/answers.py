"""What the server answers, typed. A field that a newer server adds is passed over."""

from __future__ import annotations

from typing import Any

import msgspec


class Recommended(msgspec.Struct, frozen=True):
    """One place of a slate. score: comparable within one slate only. reason: why, in words."""

    item_id: str
    title: str
    score: float
    source: str
    reason: str


class Slate(msgspec.Struct, frozen=True):
    """The list to show, best first. Events that it leads to quote `recommendation_id`.

    asked: the query that it answers, from which `more` goes on.
    """

    recommendation_id: str
    release: str
    placement: str
    items: tuple[Recommended, ...]
    degraded: tuple[str, ...] = ()
    asked: dict[str, Any] = {}

    def item_ids(self) -> list[str]:
        return [item.item_id for item in self.items]


class Refused(msgspec.Struct, frozen=True):
    """position: place in what was sent, from 0. reason: a sentence."""

    position: int
    reason: str


class Recorded(msgspec.Struct, frozen=True):
    """accepted, duplicates: event ids. What is accepted is on disk; duplicates were recorded before."""

    accepted: tuple[str, ...]
    duplicates: tuple[str, ...]
    rejected: tuple[Refused, ...]


class Put(msgspec.Struct, frozen=True):
    """accepted: ids of what was kept."""

    accepted: tuple[str, ...]
    rejected: tuple[Refused, ...]


class Deleted(msgspec.Struct, frozen=True):
    deleted: bool


class User(msgspec.Struct, frozen=True):
    """What is known of a shopper. favourites: item ids bought in the most orders, at most ten."""

    user_id: str
    attributes: dict[str, str] = {}
    events: int = 0
    baskets: int = 0
    cart: tuple[str, ...] = ()
    favourites: tuple[str, ...] = ()
    last_seen_ms: int | None = None


class Health(msgspec.Struct, frozen=True):
    """ready: a release is loaded. problem: what is wrong. degraded: parts that answers go on without. Of a server with
    keys only who has one is told more than whether it is ready; the rest is None."""

    ready: bool
    release: str | None = None
    items: int | None = None
    users: int | None = None
    last_seq: int | None = None
    problem: str | None = ""
    degraded: tuple[str, ...] | None = ()


class Problem(msgspec.Struct, frozen=True):
    """The server's sentence: what, where, and what to do now."""

    what: str
    where: str = ""
    next_step: str = ""


class ErrorBody(msgspec.Struct, frozen=True):
    error: Problem
