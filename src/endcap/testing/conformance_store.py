"""Conformance suite for stores: one contract (`endcap.data.store.Store`), however it is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl

from endcap.core import tables
from endcap.core.errors import CallerError, DataError
from endcap.core.types import Availability, Event, EventType, Item

EXAMPLE = Item(
    item_id="milk",
    title='Whole "Milk" — täglich 🍞',
    description="One litre,\nfresh",
    price=1.25,
    currency="EUR",
    categories=("Dairy", "Milk"),
    brand="Meadow",
    attributes={"fat": "3.5 %"},
    images=("milk.jpg",),
    availability=Availability.PREORDER,
    created_ms=1_700_000_000_000,
)


def an_event(event_id: str = "", **values: Any) -> Event:
    """A view by `u` of `i`, unless it is said otherwise."""
    usual: dict[str, Any] = {"event_type": EventType.VIEW, "user_id": "u", "ts_ms": 1, "item_id": "i"}
    return Event(**{**usual, "event_id": event_id, **values})


def a_table(ids: list[str]) -> pl.DataFrame:
    """Purchases with these event ids, and a column `line` that no store keeps."""
    count = range(len(ids))
    return pl.DataFrame(
        {
            "event_id": ids,
            "event_type": ["purchase" for _ in count],
            "user_id": [f"u{number % 7}" for number in count],
            "ts_ms": list(count),
            "item_id": [f"i{number % 11}" for number in count],
            "price": [0.5 for _ in count],
            "line": [number + 1 for number in count],
        },
        schema_overrides={"event_id": pl.String(), "line": pl.Int64()},
    )


class StoreConformance:
    """bulk_rows: enough rows that a table goes the way of bulk loads."""

    bulk_rows: int = 2_500

    def make(self) -> Any:
        """An empty store, opened for writing."""
        raise NotImplementedError

    def reopen(self, *, read_only: bool = False) -> Any:
        """What `make` gave in this test, opened once more: beside the first for reading, or after it was closed."""
        raise NotImplementedError

    def bulk(self, prefix: str) -> pl.DataFrame:
        return a_table([f"{prefix}{number}" for number in range(self.bulk_rows)])

    def test_an_event_comes_back_as_it_was_sent(self) -> None:
        full = an_event(
            "e1",
            event_type=EventType.RATING,
            ts_ms=1_700_000_000_123,
            session_id="",
            quantity=2.0,
            price=0.1,
            currency="EUR",
            value=4.5,
            query='käse, "alt"\n\\N \\. \t🧀',
            placement="home",
            recommendation_id="r",
        )
        search = an_event("e2", event_type=EventType.SEARCH, item_id=None, query="milk")
        with self.make() as store:
            answer = store.append([full, search])
            assert (answer.accepted, answer.duplicates) == (["e1", "e2"], []), "not as it was sent"
            assert [event for _, event in store.events_after(0)] == [full, search]
            frame = store.events().collect()
            assert frame.schema == {**tables.schema(tables.EVENTS), "seq": pl.Int64()}, f"the schema is {frame.schema}"
            assert frame["query"].to_list() == [full.query, "milk"]
            assert frame["session_id"].to_list() == ["", None], "an empty text and none are told apart"
            assert frame["price"].to_list() == [0.1, None]
            assert store.last_seq() == answer.last_seq == frame["seq"][-1]

    def test_an_event_id_is_recorded_once_however_it_comes(self) -> None:
        with self.make() as store:
            first = store.append([an_event("a"), an_event("b"), an_event("a")])
            assert (first.accepted, first.duplicates) == (["a", "b"], ["a"])
            small = store.append_table(a_table(["b", "c", "c"]))
            assert (small.n_accepted, small.duplicates["line"].to_list()) == (1, [1, 3])
            bulk = store.append_table(pl.concat([self.bulk("x"), a_table(["x3", "c"])]))
            assert (bulk.n_accepted, bulk.n_duplicates) == (self.bulk_rows, 2)
            assert bulk.duplicates["event_id"].to_list() == ["x3", "c"]
            again = store.append_table(self.bulk("x"))
            assert (again.n_accepted, again.n_duplicates) == (0, self.bulk_rows)
            live = store.append([an_event("x7"), an_event("d")])
            assert (live.accepted, live.duplicates) == (["d"], ["x7"])
            assert store.events().collect()["event_id"].n_unique() == store.counts().events == self.bulk_rows + 4

    def test_reading_on_from_any_seq_misses_nothing(self) -> None:
        with self.make() as store:
            store.append([an_event("first")])
            store.append_table(self.bulk("x"))
            store.append([an_event("last", user_id="u3")])
            frame = store.events().collect()
            assert frame["event_id"].to_list() == ["first", *(f"x{n}" for n in range(self.bulk_rows)), "last"]
            seqs = frame["seq"].to_list()
            assert seqs == sorted(set(seqs)), "seqs do not grow"
            for place in (0, 1, self.bulk_rows // 2, self.bulk_rows, self.bulk_rows + 1):
                since = seqs[place]
                assert store.events(since).collect()["seq"].to_list() == seqs[place + 1 :]
                assert [seq for seq, _ in store.events_after(since)] == seqs[place + 1 :]
                theirs = frame.filter(pl.col("user_id").is_in(["u3", "u5"]) & (pl.col("seq") > since))
                found = store.events_of(["u3", "u5", "nobody"], since)
                assert [seq for seq, _ in found] == theirs["seq"].to_list(), "events_of is not the log's own"
                assert {event.user_id for _, event in found} <= {"u3", "u5"}

    def test_the_log_is_read_lazily(self) -> None:
        with self.make() as store:
            store.append_table(self.bulk("x"))
            log = store.events()
            store.append([an_event("later")])
            assert log.collect().height == self.bulk_rows, "what came later is no part of a snapshot"
            picked = log.filter(pl.col("user_id") == "u3").select("seq", "item_id").head(5).collect()
            assert picked.columns == ["seq", "item_id"]
            assert picked["seq"].to_list() == [4, 11, 18, 25, 32]
            assert log.select(pl.len()).collect().item() == self.bulk_rows

    def test_events_without_an_id_get_one_each(self) -> None:
        with self.make() as store:
            accepted = store.append([an_event(), an_event()]).accepted
            assert len(set(accepted)) == 2
            assert store.append_table(self.bulk("x").with_columns(event_id=pl.lit(None, pl.String))).n_duplicates == 0
            assert store.append([]).accepted == []
            assert store.append_table(a_table([])).n_accepted == 0

    def test_a_wrong_event_refuses_its_whole_batch(self) -> None:
        with self.make() as store:
            _raises(CallerError, lambda: store.append([an_event("good"), an_event("x", ts_ms=2**63)]))
            _raises(CallerError, lambda: store.append([an_event("good"), an_event("x", query="\ud800")]))
            wrong = a_table(["a", "b"]).with_columns(event_type=pl.Series(["view", "stare"]))
            _raises(DataError, lambda: store.append_table(wrong))
            assert store.last_seq() == 0

    def test_threads_record_everything_once(self) -> None:
        with self.make() as store, ThreadPoolExecutor(8) as threads:
            batches = [[an_event(f"{thread}-{n}") for n in range(5)] + [an_event("shared")] for thread in range(24)]
            answers = list(threads.map(store.append, batches))
            assert sum("shared" in answer.accepted for answer in answers) == 1
            assert sum("shared" in answer.duplicates for answer in answers) == 23
            assert store.events().collect()["event_id"].n_unique() == 24 * 5 + 1

    def test_a_reader_follows_what_becomes_visible(self) -> None:
        """Reading on from the newest seq seen, while others write, gives every event once and in order."""
        with self.make() as store, self.reopen(read_only=True) as reader:
            done = threading.Event()

            def write(thread: int) -> None:
                for number in range(20):
                    store.append([an_event(f"{thread}-{number}-{k}") for k in range(3)])

            seen: list[str] = []

            def follow() -> None:
                seq = 0
                while True:
                    last = done.is_set()
                    newest = reader.events_after(seq)
                    seq = newest[-1][0] if newest else seq
                    seen.extend(event.event_id for _, event in newest)
                    if last:
                        return

            follower = threading.Thread(target=follow)
            follower.start()
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(write, range(4)))
            done.set()
            follower.join(30)
            assert len(seen) == 240, f"{len(seen)} of 240 events were seen"
            assert seen == store.events().collect()["event_id"].to_list()

    def test_everything_is_there_after_reopening(self) -> None:
        with self.make() as store:
            store.append([an_event("a")])
            store.append_table(self.bulk("x"))
            store.put_items([EXAMPLE])
            store.put_users(pl.DataFrame({"user_id": ["u"], "attributes": ['{"k": "v"}']}))
            before = (store.fingerprint(), store.counts(), store.last_seq())
            frame = store.events().collect()
        with self.reopen() as store:
            assert (store.fingerprint(), store.counts(), store.last_seq()) == before
            assert store.events().collect().equals(frame)
            assert store.append([an_event("a"), an_event("z")]).accepted == ["z"]
            assert store.verify() == []

    def test_a_reader_cannot_write(self) -> None:
        with self.make(), self.reopen(read_only=True) as reader:
            _raises(CallerError, lambda: reader.append([an_event("a")]))
            _raises(CallerError, lambda: reader.append_table(self.bulk("x")))
            _raises(CallerError, lambda: reader.put_items([EXAMPLE]))
            _raises(CallerError, lambda: reader.quarantine(_refused("a", 1)))

    def test_the_fingerprint_changes_with_events_items_and_users(self) -> None:
        with self.make() as store:
            seen = [store.fingerprint()]
            changes: tuple[Callable[[], object], ...] = (
                lambda: store.append([an_event("a")]),
                lambda: store.append_table(self.bulk("x")),
                lambda: store.put_items([EXAMPLE]),
                lambda: store.put_users(pl.DataFrame({"user_id": ["u"]})),
            )
            for change in changes:
                change()
                seen.append(store.fingerprint())
            assert len(set(seen)) == 5

    def test_an_item_comes_back_as_it_was_put(self) -> None:
        with self.make() as store:
            assert store.put_items([EXAMPLE, Item(item_id="bread")]) == 2
            assert store.item("milk") == EXAMPLE
            assert store.item("absent") is None
            assert store.titles(["bread", "milk", "absent"]) == {"bread": "", "milk": EXAMPLE.title}
            items = store.items()
            assert items.schema == tables.schema(tables.ITEMS)
            assert items["item_id"].to_list() == ["milk", "bread"], "items do not come in the order of arrival"
            assert sorted(store.availability()) == [("bread", "in_stock"), ("milk", "preorder")]

    def test_only_what_is_named_changes(self) -> None:
        with self.make() as store:
            store.put_items([EXAMPLE, Item(item_id="bread", title="Rye")])
            store.put_items(pl.DataFrame({"item_id": ["milk"], "price": [2.0]}))
            store.patch_items([{"item_id": "milk", "title": "Oat"}, {"item_id": "bread", "attributes": {"k": "v"}}])
            milk = store.item("milk")
            assert (milk.price, milk.title, milk.brand, milk.categories) == (2.0, "Oat", "Meadow", ("Dairy", "Milk"))
            assert store.item("bread") == Item(item_id="bread", title="Rye", attributes={"k": "v"})
            store.patch_items([{"item_id": "milk", "price": None, "categories": ["Drinks"]}])
            milk = store.item("milk")
            assert (milk.price, milk.categories, milk.title) == (None, ("Drinks",), "Oat")
            version = store.items_version()
            for wrong in ({"title": "x"}, {"item_id": "a", "colour": "red"}, {"item_id": "a", "price": "much"}):
                _raises(DataError, lambda row=wrong: store.patch_items([{"item_id": "b", "title": "y"}, row]))
            _raises(DataError, lambda: store.patch_items([{"item_id": "a", "availability": "perhaps"}]))
            assert (store.items_version(), store.item("b")) == (version, None), "a part of a wrong patch was kept"

    def test_what_changed_since_a_version(self) -> None:
        with self.make() as store:
            assert store.items_changed(0) == (0, [])
            store.put_items([EXAMPLE, Item(item_id="bread")])
            first, items = store.items_changed(0)
            assert (first, [item.item_id for item in items]) == (store.items_version(), ["milk", "bread"])
            store.patch_items([{"item_id": "bread", "title": "Rye"}, {"item_id": "milk", "title": EXAMPLE.title}])
            second, items = store.items_changed(first)
            assert second > first
            assert items == [Item(item_id="bread", title="Rye")], "an item that is as it was has not changed"
            assert store.items_changed(second) == (second, [])

    def test_a_deleted_item_is_hidden_until_it_is_put_again(self) -> None:
        with self.make() as store:
            store.put_items([EXAMPLE])
            version = store.items_version()
            assert store.delete_items(["milk", "known to the log alone"]) == 2
            assert {item.availability for item in store.items_changed(version)[1]} == {Availability.HIDDEN}
            store.put_items(pl.DataFrame({"item_id": ["milk"], "price": [3.0]}))
            assert store.item("milk").availability is Availability.HIDDEN, "a price does not bring an item back"
            assert sorted(store.availability()) == [("known to the log alone", "hidden"), ("milk", "hidden")]
            store.put_items([EXAMPLE])
            assert store.item("milk") == EXAMPLE
            assert store.delete_items([]) == 0

    def test_users(self) -> None:
        with self.make() as store:
            assert store.user("u") is None
            store.put_users(pl.DataFrame({"user_id": ["u", "v"], "attributes": ['{"k": "v"}', "{}"]}))
            store.put_users(pl.DataFrame({"user_id": ["u"]}))
            assert store.user("u") == {"k": "v"}, "an absent column does not clear"
            assert store.users().schema == tables.schema(tables.USERS)
            assert store.users()["user_id"].to_list() == ["u", "v"]

    def test_quarantine_keeps_every_row_and_counts_by_rule(self) -> None:
        with self.make() as store:
            assert store.quarantined().collect().equals(tables.empty(tables.QUARANTINE))
            assert store.quarantine(_refused("a", 1).clear()) == 0
            for rule, line in (("a", 1), ("b", 2), ("b", 3)):
                assert store.quarantine(_refused(rule, line)) == 1
            assert store.quarantined().collect()["line"].to_list() == [1, 2, 3]
            assert store.quarantine_counts() == {"b": 2, "a": 1}
            assert store.counts().quarantined == 3


def _refused(rule: str, line: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"table": ["events"], "rule": [rule], "reason": ["r"], "source": ["f"], "line": [line], "raw": ["{}"]}
    )


def _raises(kind: type[Exception], call: Any) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__} was raised")
