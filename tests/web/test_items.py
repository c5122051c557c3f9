"""The catalogue over HTTP: rows judged each on its own, changes that the next answer knows, items that stay away."""

from __future__ import annotations

import pytest

OATS = {
    "item_id": "oats",
    "title": "Oat Milk",
    "price": 1.99,
    "currency": "USD",
    "categories": ["Dairy", "Plant"],
    "brand": "Northfield",
    "attributes": {"size": "1 l", "vegan": True, "tags": ["a", "b"]},
    "images": ["https://shop.example/oats.jpg"],
    "created_ms": 1_700_000_000_000,
}


def shown(client, **params):
    answer = client.get("/v1/recommendations", params={"n": 16, **params})
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def test_an_item_comes_back_as_it_was_put(client, shop):
    assert client.put("/v1/items", json={"items": [OATS]}).json() == {"accepted": ["oats"], "rejected": []}
    assert client.get("/v1/items/oats").json() == {
        **OATS,
        "description": "",
        "audio": [],
        "availability": "in_stock",
        "attributes": {"size": "1 l", "vegan": "true", "tags": "a|b"},
    }
    assert shop.store.item("oats").price == 1.99


def test_bad_rows_do_not_take_good_ones_with_them(client, shop):
    rows = [
        OATS,
        {"item_id": "negative", "price": -1},
        {"item_id": "coloured", "colour": "red"},
        {"title": "no id"},
        {"item_id": "  "},
        {"item_id": "gone", "availability": "perhaps"},
        {"item_id": "a\nb"},
        "oats",
        {"item_id": "twice", "title": "first"},
        {"item_id": "twice", "title": "second"},
    ]
    answer = client.put("/v1/items", json={"items": rows})
    assert answer.status_code == 200
    assert answer.json()["accepted"] == ["oats", "twice"]
    reasons = {entry["position"]: entry["reason"] for entry in answer.json()["rejected"]}
    assert sorted(reasons) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert reasons[2].startswith("colour:")
    assert reasons[3] == "item_id: Field required."
    assert "control characters" in reasons[6]
    assert "A later row has the same item_id" in reasons[8]
    assert shop.store.item("twice").title == "second"
    assert shop.store.item("negative") is None


def test_all_bad_is_an_error_that_says_why(client, shop):
    before = shop.store.items_version()
    answer = client.put("/v1/items", json={"items": [{"item_id": "a", "price": "much"}, {}]})
    assert answer.status_code == 422
    assert "price" in answer.json()["error"]["what"]
    assert [entry["position"] for entry in answer.json()["rejected"]] == [0, 1]
    assert shop.store.items_version() == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"items": []}', b'{"items": {}}', b'{"items": [], "x": 1}'])
def test_body_that_is_no_batch_is_refused(client, body):
    answer = client.put("/v1/items", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert all(answer.json()["error"].values())


def test_batch_is_limited(client):
    answer = client.put("/v1/items", json={"items": [{"item_id": str(place)} for place in range(1001)]})
    assert answer.status_code == 422
    assert "1000" in answer.json()["error"]["next_step"]


@pytest.mark.parametrize("availability", ["hidden", "out_of_stock"])
def test_visibility_and_stock_hold_for_the_next_answer(client, availability):
    assert "dairy-000" in shown(client)
    changed = client.patch("/v1/items/dairy-000", json={"availability": availability})
    assert changed.status_code == 200
    assert changed.json()["availability"] == availability
    assert "dairy-000" not in shown(client)
    client.patch("/v1/items/dairy-000", json={"availability": "in_stock"})
    assert "dairy-000" in shown(client)


def test_title_holds_for_the_next_answer(client):
    client.patch("/v1/items/dairy-000", json={"title": "Renamed"})
    items = client.get("/v1/recommendations", params={"n": 16}).json()["items"]
    assert {item["item_id"]: item["title"] for item in items}["dairy-000"] == "Renamed"


def test_patch_changes_only_what_is_given(client):
    client.put("/v1/items", json={"items": [OATS]})
    before = client.get("/v1/items/oats").json()
    assert client.patch("/v1/items/oats", json={"price": 2.5}).json() == {**before, "price": 2.5}
    assert client.patch("/v1/items/oats", json={"brand": None, "price": None}).json() == {
        **before,
        "price": None,
        "brand": None,
    }


def test_put_of_one_item_replaces_all_of_it(client):
    client.put("/v1/items", json={"items": [OATS]})
    answer = client.put("/v1/items/oats", json={"title": "Oats"})
    assert answer.status_code == 200
    assert (answer.json()["title"], answer.json()["price"], answer.json()["attributes"]) == ("Oats", None, {})


@pytest.mark.parametrize(
    ("fields", "word"),
    [({}, "Nothing"), ({"price": -1}, "price"), ({"colour": "red"}, "colour"), ({"item_id": "b"}, "item_id")],
)
def test_wrong_changes_are_refused(client, fields, word):
    client.put("/v1/items", json={"items": [OATS]})
    answer = client.patch("/v1/items/oats", json=fields)
    assert answer.status_code == 422
    assert word in answer.json()["error"]["what"]


def test_deleted_items_are_never_shown_again(client, shop):
    assert client.delete("/v1/items/dairy-000").json() == {"deleted": True}
    assert client.delete("/v1/items/dairy-000").json() == {"deleted": False}
    assert client.get("/v1/items/dairy-000").status_code == 404
    assert client.patch("/v1/items/dairy-000", json={"price": 1}).status_code == 404
    assert "dairy-000" not in shown(client)
    shop.publish(shop.train(evaluate=False, publish=False).manifest.release_id)
    assert "dairy-000" not in shown(client)
    client.put("/v1/items/dairy-000", json={"title": "Back"})
    assert client.get("/v1/items/dairy-000").json()["attributes"] == {}
    assert "dairy-000" in shown(client)


def test_deleting_what_only_a_release_knows_hides_it(client):
    assert client.delete("/v1/items/never-heard-of").json() == {"deleted": False}
    assert client.get("/v1/items/never-heard-of").status_code == 404


def test_ids_may_hold_slashes_and_signs(client):
    for item_id in ("a/b", "ü 1", "a+b"):
        assert client.put(f"/v1/items/{item_id}", json={"title": "t"}).json()["item_id"] == item_id


def test_a_price_without_currency_gets_the_shops(client, shop, folder):
    assert client.put("/v1/items/oats", json={"price": 1.0}).json()["currency"] == shop.config.items.currency


def test_python_says_the_same(shop):
    put = shop.put_items(
        {"item_id": "oats", "price": 1.5}, {"item_id": "bad", "price": "x"}, {"item_id": 7}, {"colour": 1}
    )
    assert put.accepted == ("oats",)
    assert [refused.position for refused in put.refused] == [1, 2, 3]
    assert shop.patch_item("oats", title="Oats").price == 1.5
    assert shop.delete_item("oats")


def test_user_attributes_are_put_and_read(client, shop):
    assert client.get("/v1/users/newcomer").status_code == 404
    answer = client.put("/v1/users/newcomer", json={"attributes": {"city": "Oslo", "age": 30}})
    assert answer.json() == {"user_id": "newcomer", "attributes": {"city": "Oslo", "age": "30"}}
    assert client.get("/v1/users/newcomer").json()["attributes"] == {"city": "Oslo", "age": "30"}
    client.put("/v1/users/newcomer", json={"attributes": {}})
    assert shop.store.user("newcomer") == {}
    assert client.put("/v1/users/%0A", json={}).status_code == 422
