"""What is recorded, what comes back, and that the next answer knows."""

from __future__ import annotations

import pytest


def send(client, body):
    return client.post("/v1/events", json=body)


def first(client, user, placement="discovery"):
    answer = client.get("/v1/recommendations", params={"user_id": user, "n": 1, "placement": placement})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"][0]["item_id"]


def bought(item, user="newcomer", **rest):
    return {"event_type": "purchase", "user_id": user, "item_id": item, **rest}


def test_next_answer_knows_of_an_event(client, after):
    for item in ("dairy-000", "pantry-001", "baby-001"):
        assert send(client, bought(item, user=f"buyer of {item}")).status_code == 200
        assert first(client, f"buyer of {item}") == after[item]


def test_event_without_time_is_now(client, shop, planted):
    send(client, bought("dairy-000"))
    assert shop.user("newcomer").last_seen_ms == planted.now_ms


def test_sending_again_changes_nothing(client, shop):
    before = shop.store.last_seq()
    one = send(client, bought("dairy-000", event_id="e-1")).json()
    two = send(client, bought("dairy-001", event_id="e-1")).json()
    assert one == {"accepted": ["e-1"], "duplicates": [], "rejected": []}
    assert two == {"accepted": [], "duplicates": ["e-1"], "rejected": []}
    assert shop.store.last_seq() == before + 1
    assert shop.user("newcomer").favourites == ("dairy-000",)


def test_bad_events_do_not_take_good_ones_with_them(client, shop):
    batch = [
        bought("dairy-000", event_id="good-1"),
        {"event_type": "purchase", "item_id": "dairy-000"},
        bought("dairy-000", ts_ms=1_700_000_000),
        bought("dairy-000", colour="red"),
        {"event_type": "view", "user_id": "newcomer"},
        "purchase",
        {"event_type": "search", "user_id": "newcomer", "query": "milk", "event_id": "good-2"},
    ]
    answer = send(client, {"events": batch})
    assert answer.status_code == 200
    assert answer.json()["accepted"] == ["good-1", "good-2"]
    reasons = {entry["position"]: entry["reason"] for entry in answer.json()["rejected"]}
    assert sorted(reasons) == [1, 2, 3, 4, 5]
    assert reasons[1] == "user_id: Neither user_id nor session_id is given. Send one of them."
    assert "milliseconds" in reasons[2]
    assert reasons[3].startswith("colour:")
    assert "needs an item" in reasons[4]
    assert shop.user("newcomer").events == 1


def test_items_become_events_of_their_own(client, shop):
    order = {
        "event_type": "purchase",
        "user_id": "newcomer",
        "event_id": "order-7",
        "price": 3.0,
        "items": [{"item_id": "dairy-000", "quantity": 2, "price": 2.5}, {"item_id": "dairy-001"}],
    }
    assert send(client, order).json()["accepted"] == ["order-7#0", "order-7#1"]
    events = [event for _, event in shop.store.events_after(shop.store.last_seq() - 2)]
    assert [(e.item_id, e.quantity, e.price) for e in events] == [("dairy-000", 2.0, 2.5), ("dairy-001", None, 3.0)]
    assert shop.user("newcomer").baskets == 1
    assert send(client, order).json()["duplicates"] == ["order-7#0", "order-7#1"]


def test_items_without_an_id_share_a_fresh_one(client):
    order = {"event_type": "view", "user_id": "u", "items": [{"item_id": "dairy-000"}, {"item_id": "dairy-001"}]}
    one, two = send(client, order).json()["accepted"]
    assert one.removesuffix("#0") == two.removesuffix("#1") != ""


def test_every_field_is_kept(client, shop):
    event = {
        "event_id": "e-1",
        "event_type": "rating",
        "user_id": "u",
        "ts_ms": 1_767_300_000_000,
        "item_id": "dairy-000",
        "session_id": "s",
        "quantity": 2.0,
        "price": 1.5,
        "currency": "USD",
        "value": 4.5,
        "query": "q",
        "placement": "home",
        "recommendation_id": "r-1",
    }
    send(client, event)
    (_, kept), *rest = shop.store.events_after(shop.store.last_seq() - 1)
    assert not rest
    assert {name: getattr(kept, name) for name in event} == event


def test_all_bad_is_an_error_that_says_why(client, shop):
    before = shop.store.last_seq()
    answer = send(client, {"events": [{"event_type": "purchase", "item_id": "x"}, {}]})
    assert answer.status_code == 422
    assert "Neither user_id nor session_id" in answer.json()["error"]["what"]
    assert answer.json()["error"]["where"] == "events[0]"
    assert [entry["position"] for entry in answer.json()["rejected"]] == [0, 1]
    assert shop.store.last_seq() == before


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"3", b'{"events": []}', b'{"events": {}}', b'{"events": [], "more": 1}', b"\xff\xfe"],
)
def test_body_that_is_no_batch_is_refused(client, body):
    answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert all(answer.json()["error"].values())


def test_batch_is_limited(client, shop):
    before = shop.store.last_seq()
    events = [bought("dairy-000", event_id=f"e-{place}") for place in range(1001)]
    answer = send(client, {"events": events})
    assert answer.status_code == 422
    assert "1000" in answer.json()["error"]["next_step"]
    assert shop.store.last_seq() == before
    assert len(send(client, {"events": events[:1000]}).json()["accepted"]) == 1000


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_body_must_be_declared_as_json(client, kind):
    """A web page of another origin can send these without asking first."""
    answer = client.post("/v1/events", content=b'{"event_type":"view"}', headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("user", ["🛒", "x" * 256, "' OR 1=1 --", " a b "])
def test_ids_are_kept_as_they_are(client, shop, user):
    assert send(client, bought("dairy-000", user=user)).status_code == 200
    assert shop.user(user).favourites == ("dairy-000",)


@pytest.mark.parametrize("user", ["", "   ", "\x00", "a\x00b", "a\nb", "x" * 257, 7, None, True])
def test_bad_user_ids_are_refused(client, user):
    assert send(client, bought("dairy-000", user=user)).status_code == 422


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("item_id", " "),
        ("event_id", "a\tb"),
        ("session_id", ""),
        ("recommendation_id", "\x7f"),
        ("quantity", 0),
        ("quantity", -1),
        ("price", -0.5),
    ],
)
def test_what_a_file_would_not_get_in_is_refused(client, shop, field, value):
    before = shop.store.last_seq()
    answer = send(client, {**bought("dairy-000"), field: value})
    assert answer.status_code == 422
    assert field in answer.json()["rejected"][0]["reason"]
    assert shop.store.last_seq() == before


def test_an_event_on_an_unknown_item_makes_the_user_known(client):
    assert client.get("/v1/users/newcomer").status_code == 404
    assert send(client, bought("not-yet-sold")).json()["accepted"]
    known = client.get("/v1/users/newcomer")
    assert known.status_code == 200
    assert (known.json()["events"], known.json()["last_seen_ms"]) == (0, None)


def test_broken_unicode_and_numbers_are_refused(client):
    for text in (
        '{"event_type":"view","user_id":"\\ud800","item_id":"a"}',
        '{"event_type":"view","user_id":"u","item_id":"a","price":1e999}',
        '{"event_type":"view","user_id":"u","item_id":"a","price":NaN}',
    ):
        answer = client.post("/v1/events", content=text.encode(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, text


def test_an_anonymous_event_is_the_session_s_until_a_login(client):
    view = {"event_type": "view", "session_id": "s-1", "item_id": "dairy-000"}
    login = {"event_type": "login", "session_id": "s-1", "user_id": "ada"}
    assert client.post("/v1/events", json=view).status_code == 200
    assert client.get("/v1/users/session:s-1").json()["events"] == 1
    assert client.get("/v1/users/ada").status_code == 404
    assert client.post("/v1/events", json=login).status_code == 200
    assert client.get("/v1/users/ada").json()["events"] == 1
    of_session = client.get("/v1/recommendations", params={"session_id": "s-1"}).json()["items"]
    assert of_session == client.post("/v1/recommendations", json={"user_id": "ada"}).json()["items"]
    assert of_session == client.post("/v1/recommendations", json={"session_id": "s-1"}).json()["items"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"event_type": "login", "user_id": "ada", "item_id": None}, "A login needs a session."),
        ({"event_type": "login", "session_id": "s-1", "item_id": None}, "kept for anonymous sessions"),
        ({"user_id": "session:s-2", "session_id": "s-1"}, "kept for anonymous sessions"),
        ({"user_id": "session:s-2"}, "kept for anonymous sessions"),
        ({"session_id": " "}, "The session_id is blank."),
        ({"session_id": ""}, "The session_id is blank."),
    ],
)
def test_what_no_session_or_login_is(client, changed, reason):
    event = {"event_type": "view", "item_id": "dairy-000", **changed}
    answer = client.post("/v1/events", json=event)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]["what"]
