"""Slates over HTTP: what the query can hold, and what an answer is made of."""

from __future__ import annotations

import pytest


def get(client, **params):
    answer = client.get("/v1/recommendations", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(slate):
    return [item["item_id"] for item in slate["items"]]


def test_answer_has_its_parts(client, shop, planted):
    user, item = next(iter(planted.answers.items()))
    slate = get(client, user_id=user, n=3, placement="discovery")
    assert set(slate) == {"recommendation_id", "release", "placement", "items", "degraded"}
    assert slate["release"] == shop.releases.current()
    assert slate["placement"] == "discovery"
    assert len(slate["items"]) == 3
    best = slate["items"][0]
    assert (best["item_id"], best["title"], best["source"]) == (item, shop.titles([item])[item], "transitions")
    assert best["title"] != item
    assert best["reason"].startswith("Often bought after")
    assert slate["recommendation_id"] != get(client, user_id=user)["recommendation_id"]


def test_every_planted_answer_is_first(client, planted):
    found = {user: ids(get(client, user_id=user, n=1, placement="discovery")) for user in planted.answers}
    assert found == {user: [item] for user, item in planted.answers.items()}


def test_strangers_get_a_full_page(client):
    assert len(ids(get(client, n=16))) == 16
    assert len(ids(get(client, n=5, user_id="nobody"))) == 5
    assert len(ids(get(client, n=5, user_id=""))) == 5


def test_lists_are_repeated_or_separated_by_commas(client):
    whole = ids(get(client, n=16))
    left = ids(get(client, n=16, exclude=[f"{whole[0]},{whole[1]}", whole[2]]))
    assert sorted(left) == sorted(whole[3:])


def test_cart_is_taken_into_account(client, after):
    assert ids(get(client, placement="cart", cart="dairy-000", n=1)) == [after["dairy-000"]]


def test_category_is_kept_to(client):
    assert sorted(ids(get(client, category="Dairy,Pets", n=4))) == ["dairy-000", "dairy-001", "pets-000", "pets-001"]


def test_post_says_the_same_as_get(client, planted):
    user = next(iter(planted.answers))
    asked = {"user_id": user, "n": 5, "placement": "discovery", "exclude": ["dairy-000"]}
    answer = client.post("/v1/recommendations", json=asked)
    assert answer.status_code == 200
    assert answer.json()["items"] == get(client, **asked)["items"]


def test_session_events_count_for_one_answer_only(client, shop, after):
    before = shop.store.last_seq()
    asked = {"n": 1, "placement": "discovery", "user_id": "newcomer"}
    acts = [{"event_type": "purchase", "item_id": "dairy-000"}]
    answer = client.post("/v1/recommendations", json={**asked, "session_events": acts}).json()
    assert ids(answer) == [after["dairy-000"]]
    assert shop.store.last_seq() == before
    assert client.get("/v1/users/newcomer").status_code == 404


def test_answer_can_be_as_of_a_moment(client, planted, after):
    events = planted.dataset.events.filter(user_id="shopper-0000").sort("ts_ms").collect()
    moment = events["ts_ms"][2]
    asked = {"user_id": "shopper-0000", "n": 1, "placement": "discovery", "now_ms": moment}
    assert ids(client.post("/v1/recommendations", json=asked).json()) == [after[events["item_id"][2]]]


def test_bought_can_be_hidden_anywhere(client, planted):
    user = next(iter(planted.answers))
    bought = set(planted.dataset.events.filter(user_id=user).collect()["item_id"])
    assert bought & set(ids(get(client, user_id=user, n=16)))
    assert not bought & set(ids(get(client, user_id=user, n=16, hide_bought=True)))


def pages(client, n, **asked):
    """Page after page, until one is not full."""
    found, after = [], None
    while True:
        slate = get(client, n=n, **asked, **({"after": after} if after else {}))
        found.append(ids(slate))
        after = slate["recommendation_id"]
        if len(found[-1]) < n:
            return found


def test_pages_never_repeat_and_end_with_the_shop(client, planted):
    whole = ids(get(client, n=16, user_id=next(iter(planted.answers))))
    found = pages(client, 5, user_id=next(iter(planted.answers)))
    assert [len(page) for page in found] == [5, 5, 5, 1]
    assert sorted(item for page in found for item in page) == sorted(whole)


def test_the_next_page_survives_another_release(client, shop):
    first = get(client, n=10)
    shop.train(evaluate=False)
    second = get(client, n=10, after=first["recommendation_id"])
    assert second["release"] != first["release"]
    assert len(ids(second)) == 6
    assert not set(ids(second)) & set(ids(first))


def test_what_is_no_id_of_ours_has_no_next_page(client):
    answer = client.get("/v1/recommendations", params={"after": "r-somebody-elses"})
    assert (answer.status_code, answer.json()["error"]["where"]) == (422, "after")


def keyed(client, key, **asked):
    return client.get("/v1/recommendations", params=asked, headers={"Idempotency-Key": key})


def test_the_same_key_gets_the_same_list_whatever_happened_meanwhile(client, planted):
    user = next(iter(planted.answers))
    first = keyed(client, "k-1", user_id=user, placement="discovery")
    bought = {"event_type": "purchase", "user_id": user, "item_id": first.json()["items"][0]["item_id"]}
    assert client.post("/v1/events", json=bought).status_code == 200
    again = keyed(client, "k-1", user_id=user, placement="discovery")
    assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
    fresh = keyed(client, "k-2", user_id=user, placement="discovery")
    assert "Idempotent-Replayed" not in fresh.headers
    assert bought["item_id"] in ids(first.json())
    assert bought["item_id"] not in ids(fresh.json())


def test_a_key_is_for_one_request(client):
    assert keyed(client, "k-1", n=3).status_code == 200
    other = keyed(client, "k-1", n=4)
    assert (other.status_code, other.json()["error"]["where"]) == (422, "Idempotency-Key")
    body = {"n": 3}
    posted = client.post("/v1/recommendations", json=body, headers={"Idempotency-Key": "k-1"})
    assert posted.status_code == 422
    one, two = (client.post("/v1/recommendations", json=body, headers={"Idempotency-Key": "k-3"}) for _ in range(2))
    assert one.content == two.content
    assert keyed(client, "x" * 257).status_code == 422


def test_filters_narrow_the_choice(client, shop):
    def filtered(**filters):
        return ids(client.post("/v1/recommendations", json={"n": 16, "filters": filters}).json())

    everything, prices = filtered(), {row["item_id"]: row["price"] for row in shop.store.items().to_dicts()}
    cheap = filtered(max_price=3)
    assert sorted(cheap) == sorted(item for item in everything if prices[item] <= 3)
    assert sorted(filtered(min_price=3.01)) == sorted(set(everything) - set(cheap))
    assert sorted(ids(get(client, n=16, max_price=3))) == sorted(cheap)
    assert sorted(filtered(max_price=1e15)) == sorted(filtered(min_price=0))  # as good as none
    assert filtered(brands=["nobody's"]) == filtered(attributes={"colour": "red"}) == []
    assert filtered(categories=["Dairy"], max_price=3) == [
        item for item in filtered(categories=["Dairy"]) if item in cheap
    ]


def test_a_budget_that_nothing_fits_gives_what_sells(client, planted):
    user = next(iter(planted.answers))
    for _ in range(3):
        get(client, user_id=user)
    slate = get(client, user_id=user, n=10, budget_ms=0.0001)
    assert "transitions" in slate["degraded"]
    assert len(ids(slate)) == 10
    assert get(client, user_id=user)["degraded"] == []


def test_reasons_come_in_the_language_asked_for(client, planted):
    user = next(iter(planted.answers))
    reason = get(client, user_id=user, n=1, locale="zh-CN", placement="discovery")["items"][0]["reason"]
    assert "购买" in reason


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"n": 0}, "n"),
        ({"n": 501}, "n"),
        ({"n": "many"}, "n"),
        ({"placement": "roof"}, "placement"),
        ({"placement": "item"}, "item"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_queries_say_what_is_wrong(client, params, named):
    for answer in (client.get("/v1/recommendations", params=params), client.post("/v1/recommendations", json=params)):
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert set(error) == {"what", "where", "next_step"}
        assert named in error["what"]


def test_similar_items(client, after):
    answer = client.get("/v1/items/dairy-000/similar", params={"n": 1})
    assert answer.json()["placement"] == "item"
    assert ids(answer.json()) == [after["dairy-000"]]


def test_unknown_item_and_user_are_not_found(client):
    for path in ("/v1/items/nothing/similar", "/v1/users/nobody", "/v1/items/a/b/similar", "/v1/users/a/b"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["where"] in {"item_id", "user_id"}


def test_user_is_described(client, planted):
    client.post("/v1/events", json={"event_type": "purchase", "user_id": "a/b", "item_id": "pets-000"})
    client.post("/v1/events", json={"event_type": "add_to_cart", "user_id": "a/b", "item_id": "dairy-000"})
    assert client.get("/v1/users/a/b").json() == {
        "user_id": "a/b",
        "attributes": {},
        "events": 2,
        "baskets": 1,
        "cart": ["dairy-000"],
        "favourites": ["pets-000"],
        "last_seen_ms": planted.now_ms,
    }


@pytest.mark.parametrize(
    "path", ["/v1/items/dairy-000/similar", "/v1/users/shopper-0000", "/health/live", "/health/ready"]
)
def test_unknown_parameters_are_errors_everywhere(client, path):
    assert client.get(path).status_code == 200
    answer = client.get(path, params={"colour": "red"})
    assert answer.status_code == 422
    assert "colour" in answer.json()["error"]["what"]


@pytest.mark.parametrize("path", ["/v1/events", "/v1/recommendations"])
def test_bodies_are_declared_and_are_json(client, path):
    assert client.post(path, params={"colour": "red"}, json={}).json()["error"]["where"] == "query"
    undeclared = client.post(path, content=b'{"n": 3}', headers={"Content-Type": "text/plain"})
    assert undeclared.status_code == 415
    assert "Content-Type: application/json" in undeclared.json()["error"]["next_step"]
    for body in (b'{"n": ', b"\xff\xfe"):
        broken = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert broken.status_code == 422
        assert broken.json()["error"]["what"].startswith("The body is not JSON")
        assert broken.json()["error"]["next_step"] == "Send one JSON object in UTF-8."


def test_locale_may_have_an_underscore(client, planted):
    user = next(iter(planted.answers))
    reason = get(client, user_id=user, n=1, locale="zh_CN", placement="discovery")["items"][0]["reason"]
    assert "购买" in reason
    similar = client.get("/v1/items/dairy-000/similar", params={"n": 1, "locale": "zh_CN"}).json()
    assert "购买" in similar["items"][0]["reason"]
