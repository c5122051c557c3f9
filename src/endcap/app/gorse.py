"""What a shop that speaks Gorse's words may ask of this one.

Written after the routes of Gorse 0.4 and 0.5 (gorse-io/gorse, server/rest.go); docs/gorse.md says what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from endcap.app import catalogue
from endcap.app.gorse_known import KnownItems
from endcap.app.gorse_words import Feedback, GorseItem, event_of, feedback_of, item_fields, user_fields
from endcap.app.queries import MAX_LISTED, MAX_N
from endcap.core.errors import CallerError, NotFoundError
from endcap.core.types import Availability, Event, Item, Placement, Query, Slate

if TYPE_CHECKING:
    from endcap.app.runtime import Shop

SHOWN = [kind.value for kind in Availability if kind.shown]
ITEM_GIVEN = ("item_id", "title", "categories", "attributes", "availability", "created_ms")


class Gorse:
    """A shop, asked in Gorse's words. Safe to use from several threads."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self._lock = Lock()
        self._catalogue: tuple[int, pl.DataFrame] = (-1, pl.DataFrame())

    @cached_property
    def _known_items(self) -> KnownItems:
        return KnownItems(self.shop.store)

    def insert(self, feedback: Sequence[Feedback]) -> int:
        """Record all or none; returns how many were given. CallerError for a type that the settings do not name."""
        now_ms = self.shop.clock()
        events = [self._event(entry, now_ms, place) for place, entry in enumerate(feedback)]
        if events:
            self.shop.record(*events)
        return len(events)

    def feedback(self, since_seq: int, n: int, feedback_type: str | None = None) -> tuple[int, list[Feedback]]:
        """The next n of the log after a seq, and the seq to go on from; 0 where that was all."""
        found: list[Feedback] = []
        while True:
            rows = self.shop.store.events(since_seq).filter(pl.col("item_id").is_not_null())
            page = rows.head(max(n, 1000)).collect()
            for row in page.iter_rows(named=True):
                if len(found) == n:
                    return since_seq, found
                since_seq = row.pop("seq")
                entry = feedback_of(self.shop.config.gorse, msgspec.convert(row, Event))
                if entry is not None and feedback_type in (None, entry.feedback_type):
                    found.append(entry)
            if page.height < max(n, 1000):
                return 0, found

    def feedback_of_user(self, user_id: str, item_id: str | None = None) -> list[Feedback]:
        """What a user did, the newest act of each type on each item, oldest first."""
        return self._newest(
            event for _, event in self.shop.store.events_of([user_id]) if item_id in (None, event.item_id)
        )

    def feedback_of_item(self, item_id: str) -> list[Feedback]:
        """What users did to an item, the newest act of each type of each user, oldest first. Reads the whole log."""
        rows = self.shop.store.events().filter(pl.col("item_id") == item_id).drop("seq").collect()
        return self._newest(msgspec.convert(row, Event) for row in rows.iter_rows(named=True))

    def recommend(
        self, user_id: str, n: int, offset: int = 0, categories: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> Slate:
        """A page of what fits a user, without what they know already where the settings say so."""
        known = self._known(user_id) if self.shop.config.gorse.hide_read else []
        return self._page(Query(user_id=user_id, categories=tuple(categories)), n, offset, [*exclude, *known])

    def write_back(self, slate: Slate, user_id: str, feedback_type: str, delay_ms: int) -> None:
        """Record that a slate was shown. delay_ms: how much later it is to count."""
        now_ms = self.shop.clock()
        shown = [Feedback(feedback_type, user_id, item.item_id, now_ms + delay_ms) for item in slate.items]
        events = [self._event(entry, now_ms, place) for place, entry in enumerate(shown)]
        if events:
            about = {"recommendation_id": slate.recommendation_id, "placement": slate.placement.value}
            self.shop.record(*(msgspec.structs.replace(event, **about) for event in events))

    def popular(self, n: int, offset: int, category: str = "", user_id: str = "") -> Slate:
        """What sells best these days. user_id: without what this user knows."""
        return self._page(Query(categories=_one(category)), n, offset, self._known(user_id) if user_id else [])

    def neighbours(self, item_id: str, n: int, offset: int, category: str = "") -> Slate:
        """What goes with an item. NotFoundError for one that the release does not know."""
        self.shop.similar(item_id, 1)
        query = Query(item_id=item_id, placement=Placement.ITEM, categories=_one(category))
        return self._page(query, n, offset, [])

    def session(self, acts: Sequence[Feedback], n: int, offset: int, category: str = "") -> Slate:
        """What fits a visit of which nothing is recorded, without the items of its acts."""
        now_ms = self.shop.clock()
        events = [self._event(act, now_ms, place) for place, act in enumerate(acts)]
        query = Query(session_events=tuple(sorted(events, key=lambda event: event.ts_ms)), categories=_one(category))
        return self._page(query, n, offset, [act.item_id for act in acts])

    def latest(self, n: int, offset: int, category: str = "", user_id: str = "") -> list[tuple[str, int]]:
        """Item ids with when they were listed, UTC milliseconds, the newest first; those that may be shown."""
        _check_page(n, offset)
        known = pl.col("availability").is_in(SHOWN) & pl.col("created_ms").is_not_null()
        if category:
            known &= pl.col("categories").list.contains(category)
        if user_id:
            known &= ~pl.col("item_id").is_in(self._known(user_id))
        found = self._items().filter(known).sort("created_ms", "item_id", descending=[True, False])
        page = found.slice(offset, n)
        return list(zip(page["item_id"].to_list(), page["created_ms"].to_list(), strict=True))

    def put_items(self, items: Sequence[GorseItem]) -> int:
        """Insert or replace items; what Gorse has no word for, such as a price, stays. CallerError for the first that
        is wrong; those that are right are kept."""
        rows: list[dict[str, Any]] = []
        for item in items:
            known = self.shop.store.item(item.item_id)
            said: dict[str, Any] = {"title": "", "categories": [], "created_ms": None, "availability": "in_stock"}
            fields = item_fields(replace(item, labels=[] if item.labels is None else item.labels), known)
            rows.append({**said, **fields, "item_id": item.item_id})
        return _all(catalogue.put_fields(self.shop.store, self.shop.config.items, rows, ITEM_GIVEN))

    def patch_item(self, item: GorseItem) -> None:
        """Change what is given. NotFoundError where there is no such item."""
        known = catalogue.item(self.shop.store, item.item_id)
        if fields := item_fields(item, known):
            self.shop.patch_item(item.item_id, **fields)

    def items(self, start: int, n: int) -> tuple[int, list[Item]]:
        """The next n items from a place on, and the place to go on from; 0 where that was all."""
        found: list[Item] = []
        for place, row in enumerate(self._items().slice(start).iter_rows(named=True), start):
            if len(found) == n:
                return place, found
            item = msgspec.convert({**row, "attributes": msgspec.json.decode(row["attributes"])}, Item)
            if not catalogue.is_deleted(item):
                found.append(item)
        return 0, found

    def put_users(self, users: Sequence[tuple[str, Any, str]]) -> int:
        """Insert or replace users: id, labels, comment. CallerError for the first that is wrong; others are kept."""
        rows = [{"user_id": user_id, "attributes": user_fields(labels, said)} for user_id, labels, said in users]
        return _all(catalogue.put_users(self.shop.store, rows))

    def users(self, start: int, n: int) -> tuple[int, list[tuple[str, dict[str, str]]]]:
        """The next n users, id and attributes, from a place on, and the place to go on from; 0 where that was all."""
        frame = self.shop.store.users()
        page = frame.slice(start, n)
        found = [(user_id, msgspec.json.decode(said, type=dict[str, str])) for user_id, said in page.rows()]
        return (start + n if start + n < frame.height else 0), found

    def user(self, user_id: str) -> dict[str, str]:
        """Attributes. NotFoundError for someone never heard of."""
        said = self.shop.store.user(user_id)
        if said is None and not self.shop.store.events_of([user_id]):
            raise NotFoundError(f"There is no user {user_id!r}.", where="user-id", next_step="Insert them first.")
        return said or {}

    def _event(self, feedback: Feedback, now_ms: int, place: int) -> Event:
        return event_of(self.shop.config.gorse, feedback, now_ms, f"[{place}]")

    def _newest(self, events: Iterable[Event]) -> list[Feedback]:
        newest: dict[tuple[str, str, str], Feedback] = {}
        for event in events:
            entry = feedback_of(self.shop.config.gorse, event)
            if entry is not None:
                key = (entry.feedback_type, entry.user_id, entry.item_id)
                newest.pop(key, None)
                newest[key] = entry
        return list(newest.values())

    def _known(self, user_id: str) -> list[str]:
        return self._known_items.of(user_id, self.shop.clock())

    def _page(self, query: Query, n: int, offset: int, without: Sequence[str]) -> Slate:
        """Some places of a slate, without some items: the first of them by the filters, the rest afterwards."""
        _check_page(n, offset)
        rest = set(without[MAX_LISTED:])
        wanted = min(MAX_N, offset + n + len(rest))
        slate = self.shop.answer(replace(query, n=wanted, exclude=tuple(without[:MAX_LISTED])))
        kept = [item for item in slate.items if item.item_id not in rest]
        return replace(slate, items=tuple(kept[offset : offset + n]))

    def _items(self) -> pl.DataFrame:
        """The catalogue as it is now, read again where it was written since."""
        version = self.shop.store.items_version()
        with self._lock:
            if version != self._catalogue[0]:
                self._catalogue = (version, self.shop.store.items())
            return self._catalogue[1]


def _check_page(n: int, offset: int) -> None:
    if n < 1 or offset < 0 or offset + n > MAX_N:
        raise CallerError(
            f"The {n} places after {offset} are asked for.",
            where="n",
            next_step=f"Ask for at least 1, among the first {MAX_N}.",
        )


def _one(category: str) -> tuple[str, ...]:
    return (category,) if category else ()


def _all(put: catalogue.Put) -> int:
    """How many were kept. CallerError where one was refused."""
    for refused in put.refused:
        raise CallerError(
            refused.reason, where=f"[{refused.position}]", next_step="Mend it and send all again: that is harmless."
        )
    return len(put.accepted)
