"""The catalogue and the users, through the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest

from endcap.core import tables
from endcap.core.errors import DataError
from endcap.core.types import Availability, Item
from endcap.data.sqlite_store import SqliteStore

MILK = Item(
    item_id="milk",
    title="Whole Milk",
    description="One litre",
    price=1.25,
    currency="EUR",
    categories=("Dairy", "Milk"),
    brand="Meadow",
    attributes={"fat": "3.5 %"},
    images=("milk.jpg",),
    audio=("milk.wav",),
    availability=Availability.PREORDER,
    created_ms=1_700_000_000_000,
)
BREAD = Item(item_id="bread", title='Bread "rye" — täglich 🍞')


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore.open(tmp_path, create=True) as opened:
        yield opened


def test_an_item_comes_back_as_it_was_put(store: SqliteStore) -> None:
    assert store.put_items([MILK, BREAD]) == 2
    assert store.item("milk") == MILK
    assert store.item("bread") == BREAD
    assert store.item("absent") is None


def test_items_is_a_table_in_order_of_arrival(store: SqliteStore) -> None:
    assert store.items().equals(tables.empty(tables.ITEMS))
    store.put_items([MILK, BREAD])
    store.put_items([Item(item_id="milk", title="Oat Drink")])
    items = store.items()
    assert items.schema == tables.schema(tables.ITEMS)
    assert items["item_id"].to_list() == ["milk", "bread"]
    assert items["title"].to_list() == ["Oat Drink", BREAD.title]
    assert items["categories"].to_list() == [[], []]


def test_a_frame_and_items_are_the_same_to_the_store(store: SqliteStore) -> None:
    store.put_items([MILK, BREAD])
    before = store.items()
    store.put_items(before)
    assert store.items().equals(before)
    assert store.item("milk") == MILK


def test_missing_columns_get_the_defaults_of_item(store: SqliteStore) -> None:
    store.put_items(pl.DataFrame({"item_id": ["a"], "price": [float("nan")]}))
    assert store.item("a") == Item(item_id="a")


def test_columns_that_a_table_lacks_stay_and_a_null_clears(store: SqliteStore) -> None:
    store.put_items([MILK])
    store.put_items(pl.DataFrame({"item_id": ["milk", "new"], "availability": ["out_of_stock"] * 2}))
    assert store.item("milk") == msgspec.structs.replace(MILK, availability=Availability.OUT_OF_STOCK)
    assert store.item("new") == Item(item_id="new", availability=Availability.OUT_OF_STOCK)
    cleared = pl.DataFrame({"item_id": ["milk"], "price": [None], "categories": [None]})
    store.put_items(cleared)
    found = store.item("milk")
    assert found is not None
    assert (found.price, found.categories, found.brand) == (None, (), "Meadow")


def test_ids_alone_change_nothing(store: SqliteStore) -> None:
    store.put_items([MILK])
    store.put_items(pl.DataFrame({"item_id": ["milk"]}))
    assert store.item("milk") == MILK


def test_every_write_moves_the_version_on(store: SqliteStore) -> None:
    assert store.items_version() == 0
    store.put_items([MILK])
    store.put_items([BREAD])
    assert store.put_items([]) == 0
    assert store.items_version() == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"item_id": None, "title": "x"}, "no item_id"),
        ({"item_id": "a", "availability": "maybe"}, "availability 'maybe' is not known"),
        ({"item_id": "a", "attributes": "[1]"}, "JSON object of text"),
        ({"item_id": "a", "attributes": '{"n": 1}'}, "JSON object of text"),
        ({"item_id": "a", "price": "cheap"}, "wrong type"),
    ],
)
def test_an_item_that_is_not_valid_is_refused_whole(store: SqliteStore, row: dict[str, object], message: str) -> None:
    good = {"item_id": "good"}
    frame = pl.DataFrame([{**dict.fromkeys(row), **good}, row], infer_schema_length=None)
    with pytest.raises(DataError, match=message):
        store.put_items(frame)
    assert store.items().height == 0
    assert store.items_version() == 0


def test_an_item_object_of_the_wrong_type_is_refused(store: SqliteStore) -> None:
    with pytest.raises(DataError, match="not valid"):
        store.put_items([Item(item_id=5)])  # type: ignore[arg-type]


def test_users(store: SqliteStore) -> None:
    attributes = json.dumps({"age": "35-44"})
    store.put_users(pl.DataFrame({"user_id": ["u1", "u2"], "attributes": [attributes, None]}))
    store.put_users(pl.DataFrame({"user_id": ["u2"], "attributes": ['{"age": "65+"}']}))
    assert store.user("u1") == {"age": "35-44"}
    assert store.user("u2") == {"age": "65+"}
    assert store.user("u3") is None
    assert store.users()["user_id"].to_list() == ["u1", "u2"]
    with pytest.raises(DataError, match="no user_id"):
        store.put_users(pl.DataFrame({"user_id": [None], "attributes": ["{}"]}, schema=tables.schema(tables.USERS)))


def test_a_large_catalogue_survives_reopening(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": [str(number) for number in range(5_000)], "title": ["Soap"] * 5_000})
    with SqliteStore.open(tmp_path, create=True) as store:
        assert store.put_items(frame) == 5_000
    with SqliteStore.open(tmp_path) as store:
        assert store.items()["item_id"].to_list() == frame["item_id"].to_list()
        assert store.counts().items == 5_000
