"""Files of other systems, in the shapes their documentation gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from endcap.core.errors import CallerError
from endcap.data.read import DataConfig, ReadResult, read_events, read_items, read_users
from endcap.data.sources import SourceConfig

NOW_MS = 1_750_000_000_000
T0 = 1_700_000_000_000
VIEW = {
    "eventType": "detail-page-view",
    "visitorId": "visitor",
    "eventTime": "2023-11-14T22:13:20.123Z",
    "attributionToken": "slate",
    "sessionId": "visit",
    "productDetails": [{"product": {"id": "a"}}],
}
ORDER = VIEW | {
    "eventType": "purchase-complete",
    "eventId": "o",
    "userInfo": {"userId": "user"},
    "productDetails": [{"product": {"id": "a"}, "quantity": 2}, {"product": {"id": "b", "priceInfo": {"price": 3.5}}}],
    "purchaseTransaction": {"id": "order", "revenue": 9.5, "currencyCode": "EUR"},
}


def config(name: str) -> DataConfig:
    source = SourceConfig(format=name)
    return DataConfig(events=source, items=source, users=source)


def google(folder: Path, *events: dict[str, Any] | str) -> ReadResult:
    path = folder / "events.jsonl"
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in events))
    return read_events(path, config("google-retail"), now_ms=NOW_MS)


def test_a_google_view_keeps_visitor_session_and_slate(tmp_path: Path) -> None:
    (event,) = google(tmp_path, VIEW).frame.to_dicts()
    assert {name: event[name] for name in ("event_type", "user_id", "item_id", "session_id", "recommendation_id")} == {
        "event_type": "view",
        "user_id": "visitor",
        "item_id": "a",
        "session_id": "visit",
        "recommendation_id": "slate",
    }
    assert event["ts_ms"] == T0 + 123


def test_a_google_order_becomes_a_row_per_product(tmp_path: Path) -> None:
    frame = google(tmp_path, ORDER).frame
    columns = ["event_id", "user_id", "item_id", "session_id", "quantity", "price", "currency"]
    assert frame.select(columns).rows() == [
        ("o#1", "user", "a", "order", 2.0, None, "EUR"),
        ("o#2", "user", "b", "order", 1.0, 3.5, "EUR"),
    ]


def test_a_google_search_needs_no_product(tmp_path: Path) -> None:
    search = VIEW | {"eventType": "search", "searchQuery": "green tea"}
    assert google(tmp_path, search).frame.select("event_type", "query", "item_id").rows() == [
        ("search", "green tea", None)
    ]


def test_what_google_events_cannot_give_is_quarantined(tmp_path: Path) -> None:
    odd = VIEW | {"productDetails": "a"}
    nothing = VIEW | {"productDetails": []}
    home = {"eventType": "home-page-view", "visitorId": "v", "eventTime": "2023-11-14T22:13:20Z"}
    result = google(tmp_path, VIEW, home, odd, nothing, VIEW | {"eventType": "dance"}, "{broken")
    assert result.frame.height == 1
    assert result.quarantine.select("line", "rule").rows() == [
        (2, "no_item"),
        (3, "malformed"),
        (4, "missing_id"),
        (5, "event_type"),
        (6, "malformed"),
    ]
    assert json.loads(result.quarantine["raw"][0]) == home
    assert result.report.rows_in == 6


def test_google_products(tmp_path: Path) -> None:
    product = {
        "id": "a",
        "title": "Tea",
        "description": "Green",
        "categories": ["Food > Drinks > Tea", "New"],
        "brands": ["Meadow"],
        "priceInfo": {"price": 3.5, "currencyCode": "EUR"},
        "attributes": {"origin": {"text": ["Assam", "Java"]}, "grams": {"numbers": [250]}},
        "availability": "OUT_OF_STOCK",
        "images": [{"uri": "https://shop.example/a.jpg"}],
        "availableTime": "2023-11-14T22:13:20Z",
    }
    path = tmp_path / "products.jsonl"
    path.write_text(json.dumps(product) + "\n" + json.dumps({"id": "b", "title": "Jam"}) + "\n")
    first, second = read_items(path, config("google-retail")).frame.to_dicts()
    assert first == {
        "item_id": "a",
        "title": "Tea",
        "description": "Green",
        "price": 3.5,
        "currency": "EUR",
        "categories": ["Food", "Drinks", "Tea"],
        "brand": "Meadow",
        "attributes": '{"origin":"Assam|Java","grams":"250"}',
        "images": ["https://shop.example/a.jpg"],
        "audio": [],
        "availability": "out_of_stock",
        "created_ms": T0,
    }
    assert (second["title"], second["categories"], second["availability"]) == ("Jam", [], "in_stock")


def test_google_has_no_users(tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    path.write_text("{}\n")
    with pytest.raises(CallerError, match="no table of users"):
        read_users(path, config("google-retail"))


def test_personalize_interactions(tmp_path: Path) -> None:
    path = tmp_path / "interactions.csv"
    path.write_text(
        "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE,DEVICE\n"
        "u,a,1700000000,View,,phone\nu,b,1700000100,AddToCart,,phone\nu,c,1700000200,Rating,4.5,phone\nu,,1700000300,View,,\n"
    )
    result = read_events(path, config("personalize"), now_ms=NOW_MS)
    assert result.frame.select("user_id", "item_id", "ts_ms", "event_type", "value").rows() == [
        ("u", "a", T0, "view", None),
        ("u", "b", T0 + 100_000, "add_to_cart", None),
        ("u", "c", T0 + 200_000, "rating", 4.5),
    ]
    assert result.quarantine.select("line", "rule").rows() == [(5, "missing_id")]


def test_personalize_items_and_users(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        "ITEM_ID,CREATION_TIMESTAMP,PRICE,CATEGORY_L1,CATEGORY_L2,COLOUR\na,1700000000,2.5,Food,Tea,green\nb,,,Food,,\n"
    )
    frame = read_items(path, config("personalize")).frame
    assert frame.select("item_id", "created_ms", "price", "categories", "attributes").rows() == [
        ("a", T0, 2.5, ["Food", "Tea"], '{"COLOUR":"green"}'),
        ("b", None, None, ["Food"], "{}"),
    ]
    path.write_text("ITEM_ID,GENRES\na,Drama|War\n")
    assert read_items(path, config("personalize")).frame["categories"].to_list() == [["Drama", "War"]]
    path.write_text("USER_ID,AGE\nu,30\n")
    assert read_users(path, config("personalize")).frame.rows() == [("u", '{"AGE":"30"}')]
