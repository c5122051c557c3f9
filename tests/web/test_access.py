"""Who is let in: keys and scopes over every route, revocation at once, shops that cannot see one another."""

from __future__ import annotations

import json
import shutil

import pytest
from fastapi.testclient import TestClient

from endcap.app.runtime import Shop
from endcap.app.tenants import Tenants
from endcap.core.errors import CallerError
from endcap.core.types import Event, EventType
from endcap.web.scopes import OPEN, scope_of
from endcap.web.server import create_app, serve

ERROR = {"what", "where", "next_step"}
ALL = ("read", "write", "admin")


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def every_route(client):
    """method and path of each route, with ids in the places of names."""
    for path, methods in client.app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path.replace("{item_id}", "dairy-000").replace("{user_id}", "buyer")
    yield from (("GET", path) for path in ("/docs", "/openapi.json", "/nothing", "/v1/nothing", "/metrics"))


@pytest.fixture
def tokens(shop):
    """scope -> a key with it alone."""
    return {scope: shop.keys.create(scope, [scope]).token for scope in ALL}


@pytest.fixture
def client(shop, tokens):
    with TestClient(create_app(shop)) as client:
        yield client


def test_without_a_key_nothing_but_health_answers(client):
    for method, path in every_route(client):
        answer = client.request(method, path)
        if path in OPEN:
            assert answer.status_code == 200, path
            continue
        assert answer.status_code == 401, (method, path)
        assert set(answer.json()["error"]) == ERROR
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="endcap"'
        assert "X-Request-Id" in answer.headers


@pytest.mark.parametrize("change", ["other", "short", "long", "unknown id", "no form", "case"])
def test_wrong_keys_are_refused(client, tokens, change):
    token = tokens["read"]
    wrong = {
        "other": token[:-4] + ("aaaa" if token[-4:] != "aaaa" else "bbbb"),
        "short": token[:-1],
        "long": token + "a",
        "unknown id": "endcap_000000000000_" + token.split("_", 2)[2],
        "no form": "secret",
        "case": token.upper(),
    }[change]
    answer = client.get("/v1/recommendations", headers=bearer(wrong))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert client.get("/v1/recommendations", headers=bearer(token)).status_code == 200


def test_a_key_does_what_its_scope_says_and_nothing_else(client, tokens):
    for method, path in every_route(client):
        needed = scope_of(method, path)
        if needed is None:
            continue
        for scope, token in tokens.items():
            answer = client.request(method, path, headers=bearer(token))
            if scope == needed:
                assert answer.status_code not in {401, 403}, (method, path, scope)
                continue
            assert answer.status_code == 403, (method, path, scope)
            assert set(answer.json()["error"]) == ERROR
            assert f'scope="{needed}"' in answer.headers["WWW-Authenticate"]


def test_what_each_scope_is_for():
    assert scope_of("GET", "/health/ready") is None
    for method, path in (("GET", "/v1/search"), ("POST", "/v1/search"), ("GET", "/openapi.json"), ("HEAD", "/docs")):
        assert scope_of(method, path) == "read"
    for method, path in (("POST", "/v1/events"), ("PUT", "/v1/items/a"), ("DELETE", "/v1/users/u")):
        assert scope_of(method, path) == "write"
    for method, path in (
        ("POST", "/v1/admin/publish"),
        ("GET", "/metrics"),
        ("GET", "/v1/itemsx"),
        ("GET", "/health/live/"),
        ("DELETE", "/v1/recommendations"),
        ("GET", "/v1/events"),
    ):
        assert scope_of(method, path) == "admin"


def test_deletions_are_in_the_audit_log(client, shop, tokens):
    assert client.delete("/v1/items/dairy-000", headers=bearer(tokens["write"])).status_code == 200
    act = shop.audit.read()[-1]
    assert (act.who, act.what, act.on) == (f"key:{tokens['write'].split('_')[1]}", "delete item", "dairy-000")


def test_both_headers_are_read(client, tokens):
    assert client.get("/v1/recommendations", headers={"X-API-Key": tokens["read"]}).status_code == 200
    assert client.get("/v1/recommendations", headers={"authorization": f"bearer {tokens['read']}"}).status_code == 200
    both = {"X-API-Key": tokens["read"], "Authorization": "Bearer wrong"}
    assert client.get("/v1/recommendations", headers=both).status_code == 401
    basic = {"X-API-Key": tokens["read"], "Authorization": "Basic Zm9vOmJhcg=="}
    assert client.get("/v1/recommendations", headers=basic).status_code == 200
    assert client.get("/v1/recommendations", params={"api_key": tokens["read"]}).status_code == 401


def test_revocation_counts_at_the_next_request(client, shop, tokens):
    assert client.get("/v1/recommendations", headers=bearer(tokens["read"])).status_code == 200
    with Shop.open(shop.folder, read_only=True) as elsewhere:
        elsewhere.keys.revoke(tokens["read"].split("_")[1])
    assert client.get("/v1/recommendations", headers=bearer(tokens["read"])).status_code == 401


def test_expired_keys_are_refused(shop, planted, client):
    token = shop.keys.create("guest", ["read"], expires_days=1).token
    assert client.get("/v1/recommendations", headers=bearer(token)).status_code == 200
    day_ms = 86_400_000
    with (
        Shop.open(shop.folder, read_only=True, clock=lambda: planted.now_ms + day_ms) as later,
        TestClient(create_app(later)) as client,
    ):
        assert client.get("/v1/recommendations", headers=bearer(token)).status_code == 401


def test_the_first_key_closes_a_server_that_runs(folder, planted):
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop, TestClient(create_app(shop)) as client:
        assert client.get("/v1/recommendations").status_code == 200
        key, _ = shop.keys.create("till", ["read"])
        assert client.get("/v1/recommendations").status_code == 401
        shop.keys.revoke(key.id)
        assert client.get("/v1/recommendations").status_code == 401


def test_keys_that_cannot_be_read_let_nobody_in(client, shop, tokens):
    shop.keys.path.write_text("[{")
    answer = client.get("/v1/recommendations", headers=bearer(tokens["read"]))
    assert answer.status_code == 503
    assert "keys.json" in answer.json()["error"]["where"]
    assert client.get("/health/live").status_code == 200
    shop.keys.path.unlink()
    assert client.get("/v1/recommendations").status_code == 503


def test_a_server_that_needs_keys_lets_nobody_in_where_there_are_none(shop):
    with TestClient(create_app(shop, keys_required=True)) as required:
        assert required.get("/v1/recommendations", headers=bearer("endcap_x_y")).status_code == 401
        assert required.get("/v1/recommendations").status_code == 401


def test_health_tells_strangers_yes_or_no_only(client, shop, tokens):
    assert client.get("/health/ready").json() == {
        "ready": True,
        "release": None,
        "items": None,
        "users": None,
        "last_seq": None,
        "problem": "",
        "degraded": None,
    }
    assert client.get("/health/ready", headers=bearer("endcap_x_y")).json()["items"] is None
    assert client.get("/health/ready", headers=bearer(tokens["read"])).json()["release"] == shop.releases.current()


def test_what_is_wrong_is_told_to_those_with_a_key(tmp_path):
    with Shop.open(tmp_path / "new") as shop, TestClient(create_app(shop)) as client:
        assert str(shop.folder) in client.get("/health/ready").json()["problem"]
        token = shop.keys.create("watch", ["read"]).token
        refused = client.get("/health/ready")
        assert refused.status_code == 503
        assert str(shop.folder) not in refused.text
        assert str(shop.folder) in client.get("/health/ready", headers=bearer(token)).json()["problem"]


def test_admin_routes(client, shop, tokens):
    first = shop.releases.current()
    second = shop.refit(publish=False).manifest.release_id
    admin = {"headers": bearer(tokens["admin"])}
    listed = client.get("/v1/admin/releases", **admin).json()["releases"]
    assert {entry["release"]: entry["published"] for entry in listed} == {first: True, second: False}
    assert client.post("/v1/admin/publish", json={"release": second}, **admin).json() == {"release": second}
    assert shop.releases.current() == second
    assert client.post("/v1/admin/rollback", json={}, **admin).json() == {"release": first}
    assert client.post("/v1/admin/rollback", json={}, **admin).status_code == 404
    assert client.post("/v1/admin/publish", json={"release": "../shop"}, **admin).status_code == 404
    assert client.post("/v1/admin/publish", json={"releases": second}, **admin).status_code == 422
    assert client.post("/v1/admin/rollback", content=b"", **admin).status_code == 415  # a form on a page may not
    who = f"key:{tokens['admin'].split('_')[1]}"
    done = [(act.who, act.what, act.on, act.outcome.split(":")[0]) for act in shop.audit.read()[-4:]]
    assert done == [
        (who, "publish", second, "done"),
        (who, "rollback", second, "done"),
        (who, "rollback", first, "failed"),
        (who, "publish", "../shop", "failed"),
    ]


@pytest.fixture(scope="module")
def pair(trained, planted, tmp_path_factory):
    """Two workspaces whose items and shoppers bear the shop's name."""
    place = tmp_path_factory.mktemp("pair")
    for name in ("north", "south"):
        folder = shutil.copytree(trained, place / name)
        with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
            shop.ingest(items=_items(place, name, planted))
            event = Event(
                event_type=EventType.VIEW, user_id=f"shopper of {name}", ts_ms=planted.now_ms, item_id="dairy-000"
            )
            shop.record(event)
            shop.train(evaluate=False)
    return place


class TestTenants:
    @pytest.fixture
    def both(self, pair, planted, tmp_path):
        """The two in one app, and a key of each with all scopes."""
        folders = [shutil.copytree(pair / name, tmp_path / name) for name in ("north", "south")]
        with (
            Shop.open(folders[0], clock=lambda: planted.now_ms) as north,
            Shop.open(folders[1], clock=lambda: planted.now_ms) as south,
        ):
            shops = {"north": north, "south": south}
            tokens = {name: shop.keys.create("all", ALL).token for name, shop in shops.items()}
            with TestClient(create_app(north, south)) as client:
                yield client, shops, tokens

    def test_a_key_reaches_its_own_shop_over_every_route(self, both):
        client, _, tokens = both
        for name, other in (("north", "south"), ("south", "north")):
            mine = bearer(tokens[name])
            for method, path in every_route(client):
                if path in OPEN or path.endswith("/rollback"):
                    continue
                hints = {"shop": other, "tenant": other}
                for given in ({}, {"json": _body(path)}, {"params": hints}):
                    answer = client.request(method, path, headers={**mine, "X-Shop": other}, **given)
                    assert f"of {other}" not in answer.text, (method, path)
            assert client.get(f"/v1/users/shopper%20of%20{other}", headers=mine).status_code == 404
            assert client.get(f"/v1/users/shopper%20of%20{name}", headers=mine).status_code == 200
            slate = client.get("/v1/recommendations", headers=mine).json()["items"]
            assert slate
            assert all(item["title"].endswith(f"of {name}") for item in slate)
            found = client.get("/v1/search", params={"q": f"of {other}"}, headers=mine).json()["items"]
            assert all(item["title"].endswith(f"of {name}") for item in found)

    def test_the_keys_of_one_that_are_gone_close_no_other(self, both):
        client, shops, tokens = both
        assert client.get("/v1/recommendations", headers=bearer(tokens["north"])).status_code == 200
        shops["north"].keys.path.unlink()
        assert client.get("/v1/recommendations", headers=bearer(tokens["south"])).status_code == 200
        assert client.get("/v1/recommendations", headers=bearer(tokens["north"])).status_code == 503
        assert client.get("/v1/recommendations", headers=bearer("ec_nobody")).status_code in (401, 503)

    def test_what_is_told_of_all_shops_is_for_the_first(self, both):
        client, _, tokens = both
        assert client.get("/metrics", headers=bearer(tokens["north"])).status_code == 200
        assert client.get("/metrics", headers=bearer(tokens["south"])).status_code == 403

    def test_what_is_written_with_one_key_is_in_one_shop(self, both):
        client, shops, tokens = both
        before = shops["south"].store.last_seq()
        event = {"event_type": "view", "user_id": "visitor", "item_id": "dairy-000", "event_id": "e-1"}
        assert client.post("/v1/events", json=event, headers=bearer(tokens["north"])).json()["accepted"] == ["e-1"]
        assert shops["south"].store.last_seq() == before
        assert client.get("/v1/users/visitor", headers=bearer(tokens["south"])).status_code == 404
        # the same id is another event in the other shop
        assert client.post("/v1/events", json=event, headers=bearer(tokens["south"])).json()["accepted"] == ["e-1"]

    def test_releases_and_acts_are_of_one_shop(self, both):
        client, shops, tokens = both
        published = shops["south"].releases.current()
        acts = shops["south"].audit.read()
        assert client.post("/v1/admin/rollback", json={}, headers=bearer(tokens["north"])).status_code == 200
        assert shops["south"].releases.current() == published
        assert shops["south"].audit.read() == acts
        assert shops["north"].audit.read()[-1].what == "rollback"

    def test_limits_are_each_shop_s_own(self, both):
        client, shops, tokens = both
        limits = shops["south"].config.limits.model_copy(update={"reads_per_s": 0.001, "read_burst": 1})
        shops["south"].config = shops["south"].config.model_copy(update={"limits": limits})
        for name, codes in (("north", [200, 200]), ("south", [200, 429])):
            asked = [client.get("/v1/recommendations", headers=bearer(tokens[name])) for _ in range(2)]
            assert [answer.status_code for answer in asked] == codes

    def test_health_is_of_all_or_of_the_key_s_shop(self, both, tmp_path):
        _, shops, tokens = both
        with Shop.open(tmp_path / "new") as new, TestClient(create_app(shops["north"], new)) as client:
            theirs = new.keys.create("watch", ["read"]).token
            assert client.get("/health/ready").status_code == 503
            assert client.get("/health/ready", headers=bearer(tokens["north"])).status_code == 200
            assert client.get("/health/ready", headers=bearer(theirs)).status_code == 503

    def test_a_copied_key_opens_neither_shop(self, both):
        _, shops, tokens = both
        shutil.copy(shops["north"].keys.path, shops["south"].keys.path)
        tenants = Tenants([*shops.values()])
        assert tenants.holder(tokens["north"]) is None
        with pytest.raises(CallerError, match="two shops"):
            serve(shops["north"], "127.0.0.1", 0, beside=[shops["south"]])

    def test_every_one_of_several_shops_needs_a_key(self, both):
        _, shops, _ = both
        shops["south"].keys.path.unlink()
        for first, second in (("north", "south"), ("south", "north")):
            with pytest.raises(CallerError, match="endcap keys create"):
                serve(shops[first], "127.0.0.1", 0, beside=[shops[second]])


def _items(place, name, planted):
    """The planted catalogue with titles that say whose they are."""
    path = place / f"{name}-items.jsonl"
    rows = planted.dataset.items.select("item_id", "title").to_dicts()
    path.write_text("\n".join(json.dumps({**row, "title": f"{row['title']} of {name}"}) for row in rows))
    return path


def _body(path):
    if path == "/v1/events":
        return {"event_type": "view", "user_id": "buyer", "item_id": "dairy-000"}
    return {"release": "nowhere"} if path.endswith("/publish") else {"user_id": "buyer"}


def test_shops_that_share_a_place_are_refused(trained, tmp_path):
    settings = '\n[state]\nurl = "redis://127.0.0.1:1/0"\nprefix = "both"\n'
    shops = []
    for name in ("north", "south"):
        folder = shutil.copytree(trained, tmp_path / name)
        (folder / "endcap.toml").write_text((folder / "endcap.toml").read_text() + settings)
        shops.append(Shop.open(folder))
        shops[-1].keys.create("till", ["read"])
    with pytest.raises(CallerError, match="in one place, Redis at 127"):
        Tenants(shops).check()
    for shop in shops:
        shop.close()


def test_a_newline_does_not_hide_a_route(shop):
    token = shop.keys.create("reader", ["read"]).token
    with TestClient(create_app(shop)) as client:
        for path in ("/metrics", "/metrics%0A"):
            assert client.get(path, headers={"X-API-Key": token}).status_code == 403
