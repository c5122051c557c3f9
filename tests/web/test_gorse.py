"""Gorse's routes, in the shapes that its clients send and read."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from endcap.app.gorse_words import duration_ms, ms_of, time_of
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.core.types import EventType
from endcap.web.server import create_app

TIME = "2026-01-01T00:00:00Z"
KEY = {"X-API-Key": "secret"}


def get(client, path, **params):
    answer = client.get(f"/api{path}", params=params, headers=KEY)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(client, method, path, body):
    answer = client.request(method, f"/api{path}", json=body, headers=KEY)
    assert answer.status_code == 200, answer.text
    return answer.json()


def act(kind, user, item, time=TIME, **rest):
    return {"FeedbackType": kind, "UserId": user, "ItemId": item, "Timestamp": time, **rest}


def ids(scores):
    return [score["Id"] for score in scores]


def test_feedback_is_recorded_and_read(client, shop):
    acts = [act("read", "u", "dairy-000"), act("star", "u", "dairy-001", Value=4.5, Comment="good")]
    assert send(client, "POST", "/feedback", acts) == {"RowAffected": 2}
    rows = [event for _, event in shop.store.events_after(shop.store.last_seq() - 2)]
    assert [(row.event_type, row.value) for row in rows] == [(EventType.IMPRESSION, None), (EventType.RATING, 4.5)]
    read = {**act("read", "u", "dairy-000"), "Value": 0.0, "Comment": ""}
    star = {**act("star", "u", "dairy-001"), "Value": 4.5, "Comment": ""}
    assert get(client, "/feedback/star/u/dairy-001") == star
    assert get(client, "/feedback/u/dairy-000") == [read]
    assert get(client, "/user/u/feedback/read") == [read]
    assert get(client, "/user/u/feedback") == [read, star]
    assert get(client, "/item/dairy-001/feedback/star")[-1] == star
    assert get(client, "/item/dairy-001/feedback/")[-1] == star
    missing = client.get("/api/feedback/like/u/dairy-000")
    assert missing.status_code == 404


def test_the_same_act_is_recorded_once(client, shop):
    before = shop.store.last_seq()
    assert send(client, "POST", "/feedback", [act("purchase", "u", "dairy-000")]) == {"RowAffected": 1}
    assert send(client, "PUT", "/feedback", [act("purchase", "u", "dairy-000")]) == {"RowAffected": 1}
    assert shop.store.last_seq() == before + 1
    send(client, "PUT", "/feedback", [act("purchase", "u", "dairy-000", "2026-01-01T00:00:01Z")])
    assert shop.store.last_seq() == before + 2
    assert [entry["Timestamp"] for entry in get(client, "/user/u/feedback")] == ["2026-01-01T00:00:01Z"]


def test_unknown_types_are_refused_with_the_setting(client, shop):
    before = shop.store.last_seq()
    answer = client.post("/api/feedback", json=[act("read", "u", "a"), act("dislike", "u", "a")])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["where"], "dislike" in error["what"]) == ("[1].FeedbackType", True)
    assert "`feedback_types` of [gorse]" in error["next_step"]
    assert shop.store.last_seq() == before


def test_the_settings_say_what_a_type_means(trained_with, planted):
    folder = trained_with('[gorse]\nfeedback_types = {wish = "add_to_cart"}\n')
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop, TestClient(create_app(shop)) as client:
        send(client, "POST", "/feedback", [act("wish", "u", "dairy-000")])
        assert shop.user("u").cart == ("dairy-000",)
        assert client.post("/api/feedback", json=[act("read", "u", "a")]).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}",
        b'[{"UserId": "u"}]',
        b'[{"FeedbackType": "read", "UserId": "u", "ItemId": "i", "Timestamp": "soon"}]',
    ],
)
def test_wrong_feedback_is_a_400(client, body):
    answer = client.post("/api/feedback", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert all(answer.json()["error"].values())


def test_all_feedback_is_listed_a_page_at_a_time(client, shop):
    send(client, "POST", "/feedback", [act("read", "u", f"item-{place}") for place in range(5)])
    cursor, found = "", []
    while True:
        page = get(client, "/feedback/read", n=2, cursor=cursor)
        found += [entry["ItemId"] for entry in page["Feedback"]]
        cursor = page["Cursor"]
        if not cursor:
            break
    assert found == [f"item-{place}" for place in range(5)]
    first = get(client, "/feedback", n=3)
    assert len(first["Feedback"]) == 3
    assert first["Feedback"][0]["FeedbackType"] == "purchase"
    assert client.get("/api/feedback", params={"cursor": "x"}).status_code == 400


def test_recommendations_are_ids_or_scores(client, planted, after):
    user, item = next(iter(planted.answers.items()))
    whole = get(client, f"/recommend/{user}", n=16)
    assert item in whole
    assert all(isinstance(entry, str) for entry in whole)
    assert get(client, f"/recommend/{user}/", n=3, offset=2) == whole[2:5]
    scored = client.get(f"/api/recommend/{user}", params={"n": 3}, headers={"X-API-Version": "2"}).json()
    assert ids(scored) == whole[:3]
    assert scored[0]["Score"] > scored[1]["Score"] > scored[2]["Score"]
    assert set(get(client, f"/recommend/{user}/Dairy", n=16)) <= {"dairy-000", "dairy-001"}
    assert get(client, f"/recommend/{user}", n=16, category="Dairy") == get(client, f"/recommend/{user}/Dairy", n=16)
    for params in ({"n": 0}, {"n": 501}, {"n": "x"}, {"offset": -1}, {"write-back-delay": "soon"}):
        assert client.get(f"/api/recommend/{user}", params=params).status_code == 400


def test_what_a_user_knows_does_not_come_back(client, shop):
    everything = get(client, "/recommend/newcomer", n=16)
    assert len(everything) == 16
    send(client, "POST", "/feedback", [act("read", "newcomer", everything[0]), act("like", "newcomer", everything[1])])
    assert not {*everything[:2]} & set(get(client, "/recommend/newcomer", n=16))
    assert everything[0] in ids(get(client, "/popular", n=16))
    assert everything[0] not in ids(get(client, "/popular", n=16, **{"user-id": "newcomer"}))


def test_items_to_leave_out_are_named(client):
    everything = get(client, "/recommend/newcomer", n=16)
    left = get(client, "/recommend/newcomer", n=16, exclude=[f"{everything[0]},{everything[1]}", everything[2]])
    assert sorted(left) == sorted(everything[3:])


def test_known_items_come_back_where_the_settings_say_so(trained_with, planted):
    folder = trained_with("[gorse]\nhide_read = false\n")
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop, TestClient(create_app(shop)) as client:
        send(client, "POST", "/feedback", [act("read", "newcomer", "dairy-000")])
        assert "dairy-000" in get(client, "/recommend/newcomer", n=16)


def test_answers_are_written_back_at_once_or_later(client, shop):
    shown = get(client, "/recommend/newcomer", n=2, **{"write-back-type": "read"})
    later = get(client, "/recommend/newcomer", n=2, **{"write-back-type": "read", "write-back-delay": "1h30m0s"})
    assert not set(shown) & set(later)
    assert get(client, "/recommend/newcomer", n=2) == later
    reads = [event for _, event in shop.store.events_of(["newcomer"])]
    assert [event.item_id for event in reads] == [*shown, *later]
    assert reads[2].ts_ms - reads[0].ts_ms == 5_400_000
    assert reads[0].recommendation_id == reads[1].recommendation_id is not None


def test_items_are_inserted_changed_and_deleted(client, shop):
    item = {
        "ItemId": "100",
        "IsHidden": True,
        "Categories": ["d", "e"],
        "Timestamp": "2026-01-01T10:00:00.5Z",
        "Labels": {"tags": ["a", "b"], "size": 3},
        "Comment": "a title",
    }
    assert send(client, "POST", "/item", item) == {"RowAffected": 1}
    assert get(client, "/item/100") == item
    shop.patch_item("100", price=3.5, attributes={"colour": "red"})
    assert get(client, "/item/100")["Labels"] == {"colour": "red"}
    patch = {"IsHidden": False, "Categories": None, "Labels": ["x"], "Timestamp": None, "Comment": None}
    assert send(client, "PATCH", "/item/100", patch) == {"RowAffected": 1}
    assert get(client, "/item/100") == {**item, "IsHidden": False, "Labels": ["x"]}
    assert send(client, "POST", "/items", [item, {"ItemId": "101"}]) == {"RowAffected": 2}
    assert shop.store.item("100").price == 3.5
    assert get(client, "/item/101") == {
        "ItemId": "101",
        "IsHidden": False,
        "Categories": [],
        "Timestamp": "0001-01-01T00:00:00Z",
        "Labels": [],
        "Comment": "",
    }
    send(client, "PUT", "/item/101/category/new", None)
    assert get(client, "/item/101")["Categories"] == ["new"]
    send(client, "DELETE", "/item/101/category/new", None)
    assert get(client, "/item/101")["Categories"] == []
    assert send(client, "DELETE", "/item/100", None) == {"RowAffected": 1}
    assert client.get("/api/item/100").status_code == 404
    assert client.patch("/api/item/100", json={"IsHidden": False}).status_code == 404


def test_hidden_items_stay_away_and_come_back_at_once(client):
    send(client, "PATCH", "/item/dairy-000", {"IsHidden": True})
    for path in ("/recommend/newcomer", "/popular", "/latest"):
        found = get(client, path, n=16)
        assert "dairy-000" not in (found if path.startswith("/rec") else ids(found))
    send(client, "PATCH", "/item/dairy-000", {"IsHidden": False})
    assert "dairy-000" in get(client, "/recommend/newcomer", n=16)


def test_hiding_forgets_nothing_of_the_stock(client, shop):
    shop.patch_item("dairy-000", availability="out_of_stock")
    send(client, "PATCH", "/item/dairy-000", {"IsHidden": False})
    assert shop.store.item("dairy-000").availability == "out_of_stock"


def test_items_and_users_are_listed_a_page_at_a_time(client, shop):
    send(client, "DELETE", "/item/dairy-000", None)
    cursor, found = "", []
    while True:
        page = get(client, "/items", n=5, cursor=cursor)
        found += [item["ItemId"] for item in page["Items"]]
        cursor = page["Cursor"]
        if not cursor:
            break
    assert sorted(found) == sorted(set(shop.store.items()["item_id"]) - {"dairy-000"})
    send(client, "POST", "/users", [{"UserId": f"new-{place}"} for place in range(3)])
    users = get(client, "/users", n=1000)
    assert users["Cursor"] == ""
    assert [user["UserId"] for user in users["Users"]][-3:] == ["new-0", "new-1", "new-2"]


def test_users_are_inserted_and_changed(client):
    user = {"UserId": "100", "Labels": ["a", "b"], "Comment": "comment"}
    assert client.get("/api/user/100").status_code == 404
    assert send(client, "POST", "/user", {**user, "Subscribe": ["d"]}) == {"RowAffected": 1}
    assert get(client, "/user/100") == user
    send(client, "PATCH", "/user/100", {"Labels": {"city": "Oslo"}})
    assert get(client, "/user/100") == {**user, "Labels": {"city": "Oslo"}}
    send(client, "POST", "/feedback", [act("read", "200", "dairy-000")])
    assert get(client, "/user/200") == {"UserId": "200", "Labels": None, "Comment": ""}
    assert client.delete("/api/user/100").status_code == 405


def test_neighbours_go_with_an_item(client, after):
    assert ids(get(client, "/item/dairy-000/neighbors", n=1)) == [after["dairy-000"]]
    assert ids(get(client, "/item/dairy-000/neighbors/", n=2))[1:] == ids(
        get(client, "/item/dairy-000/neighbors", n=1, offset=1)
    )
    assert set(ids(get(client, "/item/dairy-000/neighbors/Pets", n=9))) <= {"pets-000", "pets-001"}
    assert get(client, "/item/nothing/neighbors") == []


def test_visits_are_answered_without_being_recorded(client, shop, after):
    before = shop.store.last_seq()
    acts = [act("purchase", "0", "dairy-000", "2025-06-01")]
    found = send(client, "POST", "/session/recommend?n=16", acts)
    assert ids(found)[0] == after["dairy-000"]
    assert "dairy-000" not in ids(found)
    assert set(ids(send(client, "POST", "/session/recommend/Dairy", acts))) == {"dairy-001"}
    nobody = [{name: said for name, said in acts[0].items() if name != "UserId"}]
    assert ids(send(client, "POST", "/session/recommend?n=16", nobody)) == ids(found)
    assert client.post("/api/feedback", json=nobody).status_code == 400
    assert shop.store.last_seq() == before


def test_the_latest_come_first(client, shop):
    for place, item in enumerate(("dairy-000", "pets-000", "baby-001")):
        send(client, "PATCH", f"/item/{item}", {"Timestamp": f"2030-01-0{place + 1}T00:00:00Z"})
    found = get(client, "/latest", n=3)
    assert ids(found) == ["baby-001", "pets-000", "dairy-000"]
    assert found[0]["Score"] == 1893628800
    assert ids(get(client, "/latest/Pets", n=1)) == ["pets-000"]
    assert ids(get(client, "/latest", n=2, offset=1)) == ["pets-000", "dairy-000"]


def test_more_than_a_hundred_are_answered(client):
    assert client.get("/api/popular", params={"n": 500}).status_code == 200


def test_a_page_of_another_site_records_nothing(client, shop):
    before = shop.store.last_seq()
    asked = {"params": {"write-back-type": "read"}, "headers": {"Sec-Fetch-Site": "cross-site"}}
    assert client.get("/api/recommend/u", **asked).status_code == 403
    assert shop.store.last_seq() == before


def test_health(client, shop):
    good = {"DataStoreError": None, "CacheStoreError": None, "DataStoreConnected": True, "CacheStoreConnected": True}
    assert get(client, "/health/ready") == get(client, "/health/live") == {"Ready": True, **good}
    shop.close()
    assert get(client, "/health/ready")["Ready"]  # answers go on without the log


def test_health_without_a_release(tmp_path):
    with Shop.open(tmp_path / "empty") as shop, TestClient(create_app(shop)) as client:
        assert client.get("/api/health/ready").status_code == 503
        assert client.get("/api/health/live").json()["Ready"] is False


@pytest.mark.parametrize(
    ("text", "ts_ms"),
    [
        ("2026-01-31T12:00:00Z", 1769860800000),
        ("2026-01-31", 1769817600000),
        ("2026-01-31 12:00:00", 1769860800000),
        ("2026/01/31 12:00:00", 1769860800000),
        ("2026-01-31 13:00:00 +0100", 1769860800000),
        ("2026-01-31 12:00:00 +0000 UTC", 1769860800000),
        ("2026-01-31T12:00:00.123456789Z", 1769860800123),
        ("1769860800", 1769860800000),
        ("1769860800123", 1769860800123),
        ("", None),
        ("0001-01-01T00:00:00Z", None),
    ],
)
def test_times_are_read_as_gorse_reads_them(text, ts_ms):
    assert ms_of(text, "Timestamp") == ts_ms


def test_times_are_written_as_go_does():
    assert [time_of(ts_ms) for ts_ms in (None, 1769860800000, 1769860800120)] == [
        "0001-01-01T00:00:00Z",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.12Z",
    ]
    with pytest.raises(CallerError, match="ISO 8601"):
        ms_of("yesterday", "Timestamp")


def test_durations():
    assert [duration_ms(text, "d") for text in ("10m", "1h30m0s", "0h0m0s", "1.5s", "20ms")] == [
        600_000,
        5_400_000,
        0,
        1500,
        20,
    ]
    for text in ("soon", "10", "1d", "m", "-1h"):
        with pytest.raises(CallerError, match="duration"):
            duration_ms(text, "d")


def test_a_key_that_only_reads_writes_nothing_back(shop):
    token = shop.keys.create("reader", ["read"]).token
    before = shop.store.last_seq()
    with TestClient(create_app(shop), headers={"X-API-Key": token}) as client:
        assert client.get("/api/recommend/u").status_code == 200
        refused = client.get("/api/recommend/u", params={"write-back-type": "read"})
        assert refused.status_code == 403
        assert client.post("/api/feedback", json=[act("read", "u", "dairy-000")]).status_code == 403
    assert shop.store.last_seq() == before


def test_health_needs_no_key(shop):
    shop.keys.create("reader", ["read"])
    with TestClient(create_app(shop)) as client:
        assert client.get("/api/health/ready").json()["Ready"] is True
        assert client.get("/api/latest").status_code == 401
