"""How much and how often: rates, requests in flight, bodies at their edges, pages of other sites."""

from __future__ import annotations

import asyncio
import gzip

import msgspec
import pytest
from fastapi.testclient import TestClient

from endcap.app.config import Config, ServeConfig
from endcap.web.access import Access
from endcap.web.buckets import MOST, Buckets
from endcap.web.server import create_app

JSON = {"Content-Type": "application/json"}
ERROR = {"what", "where", "next_step"}
EVENT = {"event_type": "view", "user_id": "u", "item_id": "dairy-000"}


class Time:
    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def limited(shop, time, monkeypatch):
    """Opens the shop's app under limits, with a clock of its own for the buckets."""

    def make(**limits):
        section = shop.config.limits.model_validate(limits)
        shop.config = shop.config.model_copy(update={"limits": section})
        monkeypatch.setattr("endcap.web.access.Buckets", lambda: Buckets(time))
        return TestClient(create_app(shop))

    return make


class TestBuckets:
    def test_a_burst_then_the_rate(self, time):
        buckets = Buckets(time)
        assert [buckets.take("a", 2, 3) for _ in range(4)] == [0, 0, 0, 1]
        time.s += 0.5
        assert [buckets.take("a", 2, 3) for _ in range(2)] == [0, 1]
        time.s += 1000
        assert [buckets.take("a", 2, 3) for _ in range(4)] == [0, 0, 0, 1]

    def test_names_do_not_share(self, time):
        buckets = Buckets(time)
        assert [buckets.take(name, 1, 1) for name in "aabb"] == [0, 1, 0, 1]

    def test_what_is_owed_is_waited_for(self, time):
        buckets = Buckets(time)
        assert buckets.take("a", 10, 5) == 0
        buckets.owe("a", 10, 5, 99)
        assert buckets.take("a", 10, 5) == 10
        time.s += 9.5
        assert buckets.take("a", 10, 5) == 1
        time.s += 0.2
        assert buckets.take("a", 10, 5) == 0

    def test_rates_below_one(self, time):
        buckets = Buckets(time)
        assert buckets.take("a", 0.1, 1) == 0
        assert buckets.take("a", 0.1, 1) == 10

    def test_memory_is_bounded_and_the_newest_are_kept(self, time):
        buckets = Buckets(time)
        for name in range(2 * MOST):
            buckets.take(str(name), 1, 1)
        assert buckets.take(str(2 * MOST - 1), 1, 1) == 1
        assert buckets.take("0", 1, 1) == 0


def test_reads_are_limited(limited, time):
    with limited(reads_per_s=1, read_burst=2) as client:
        assert [client.get("/v1/recommendations").status_code for _ in range(3)] == [200, 200, 429]
        refused = client.get("/v1/recommendations")
        assert refused.headers["Retry-After"] == "1"
        assert set(refused.json()["error"]) == ERROR
        assert client.post("/v1/events", json=EVENT).status_code == 200
        assert client.get("/health/ready").status_code == 200
        time.s += 1
        assert client.get("/v1/recommendations").status_code == 200


def test_events_are_counted_one_by_one(limited, time):
    with limited(events_per_s=10, event_burst=20) as client:
        assert client.post("/v1/events", json={"events": [EVENT] * 120}).status_code == 200
        refused = client.post("/v1/events", json=EVENT)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "11"  # 100 are owed, and one more is wanted
        assert client.get("/v1/recommendations").status_code == 200
        time.s += 10.5
        assert client.post("/v1/events", json=EVENT).status_code == 200


def test_each_key_has_a_rate_of_its_own(limited, shop):
    one, two = (shop.keys.create(name, ["read"]).token for name in ("one", "two"))
    with limited(reads_per_s=1, read_burst=1) as client:
        asked = [client.get("/v1/recommendations", headers={"X-API-Key": key}) for key in (one, one, two)]
        assert [answer.status_code for answer in asked] == [200, 429, 200]


def test_addresses_count_where_there_are_no_keys(limited):
    with limited(reads_per_s=1, read_burst=1) as client:
        app = client.app
        for address, other in (("127.0.0.1", "127.0.0.2"), ("::1", "::1:0:0:0:1")):
            codes = [
                TestClient(app, client=(host, 1)).get("/v1/recommendations").status_code
                for host in (address, address, other)
            ]
            assert codes == [200, 429, 200]
        same_network = [
            TestClient(app, client=(f"2001:db8::{n}", 1)).get("/v1/recommendations").status_code for n in (1, 2)
        ]
        assert same_network == [200, 429]


def test_more_at_a_time_than_is_taken_is_refused_at_once(limited):
    with limited(in_flight=2) as client:
        app = client.app

    async def crowd():
        gate, begun = asyncio.Event(), []

        async def slow(scope, receive, send):
            begun.append(scope["path"])
            await gate.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        access = Access(slow, app.state.tenants)

        async def ask(path="/v1/recommendations"):
            sent = []

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "method": "GET", "path": path, "headers": [], "state": {"request_id": "r"}}
            await access(scope, None, send)
            return sent[0]["status"], dict(sent[0]["headers"])

        waiting = [asyncio.create_task(ask()) for _ in range(2)]
        await asyncio.sleep(0)
        refused, headers = await ask()
        health = asyncio.create_task(ask("/health/live"))
        await asyncio.sleep(0)
        assert begun == ["/v1/recommendations"] * 2 + ["/health/live"]
        gate.set()
        done = [status for status, _ in await asyncio.gather(*waiting, health)]
        after, _ = await ask()
        return refused, headers, done, after

    refused, headers, done, after = asyncio.run(crowd())
    assert (refused, headers[b"retry-after"]) == (503, b"1")
    assert done == [200, 200, 200]
    assert after == 200


def test_a_batch_of_the_largest_size(limited):
    with limited(max_batch=3) as client:
        assert client.post("/v1/events", json={"events": [EVENT] * 3}).status_code == 200
        refused = client.post("/v1/events", json={"events": [EVENT] * 4})
        assert refused.status_code == 422
        assert "at most 3" in refused.json()["error"]["next_step"]
        schema = client.get("/openapi.json").json()["components"]["schemas"]["EventsIn"]
        assert schema["properties"]["events"]["maxItems"] == 3


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("way", ["declared", "chunked", "understated"])
def test_bodies_at_the_edge(limited, over, way):
    with limited(max_body_bytes=2048) as client:
        body = msgspec.json.encode(EVENT)
        body += b" " * (2048 + over - len(body))
        content = iter([body[:1000], body[1000:]]) if way == "chunked" else body
        headers = {**JSON, "Content-Length": "10"} if way == "understated" else JSON
        answer = client.post("/v1/events", content=content, headers=headers)
        assert answer.status_code == (413 if over else 200)


def test_media_have_a_limit_of_their_own(limited):
    with limited(max_body_bytes=1024, max_media_bytes=4096) as client:
        headers = {"Content-Type": "image/png"}
        assert client.post("/v1/search", content=b"x" * 4096, headers=headers).status_code == 422
        assert client.post("/v1/search", content=b"x" * 4097, headers=headers).status_code == 413


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "GZIP"])
def test_packed_bodies_are_refused(client, coding):
    body = gzip.compress(msgspec.json.encode(EVENT))
    answer = client.post("/v1/events", content=body, headers={**JSON, "Content-Encoding": coding})
    assert answer.status_code == 415
    assert answer.headers["Accept-Encoding"] == "identity"
    assert set(answer.json()["error"]) == ERROR
    plain = client.post("/v1/events", json=EVENT, headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(limited):
    with limited(body_timeout_s=0.01) as client:
        app = client.app
        sent = []

        async def receive():
            await asyncio.sleep(3600)

        async def send(message):
            sent.append(message)

        headers = [(b"content-length", b"10"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/events", "headers": headers}
        asyncio.run(app(scope, receive, send))
        assert sent[0]["status"] == 408


class TestOrigins:
    OURS, THEIRS = "https://shop.example", "https://other.example"

    @pytest.fixture
    def named(self, shop):
        serve = shop.config.serve.model_copy(update={"origins": (self.OURS,)})
        shop.config = shop.config.model_copy(update={"serve": serve})
        with TestClient(create_app(shop)) as client:
            yield client

    def asks(self, client, origin, method="POST", headers="authorization,content-type"):
        asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
        return client.options("/v1/events", headers={"Origin": origin, **asked})

    def test_none_by_default(self, client):
        for answer in (
            self.asks(client, self.OURS),
            client.get("/v1/recommendations", headers={"Origin": self.OURS}),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")]

    def test_those_named_and_no_other(self, named):
        allowed = self.asks(named, self.OURS)
        assert allowed.status_code == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == self.OURS
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        for origin in (self.THEIRS, "http://shop.example", "https://shop.example.evil.example", "null"):
            refused = self.asks(named, origin)
            assert refused.status_code == 400
            assert set(refused.json()["error"]) == ERROR
            assert "Access-Control-Allow-Origin" not in refused.headers
        assert self.asks(named, self.OURS, method="TRACE").status_code == 400
        assert self.asks(named, self.OURS, headers="x-other").status_code == 400

    def test_answers_say_who_may_read_them(self, named, shop):
        ours = named.get("/v1/recommendations", headers={"Origin": self.OURS})
        assert ours.headers["Access-Control-Allow-Origin"] == self.OURS
        assert "Origin" in ours.headers["Vary"]
        theirs = named.get("/v1/recommendations", headers={"Origin": self.THEIRS})
        assert "Access-Control-Allow-Origin" not in theirs.headers
        shop.keys.create("k", ["read"])
        refused = named.get("/v1/recommendations", headers={"Origin": self.OURS})
        assert refused.status_code == 401
        assert refused.headers["Access-Control-Allow-Origin"] == self.OURS
        assert self.asks(named, self.OURS).status_code == 204  # browsers ask first without the key

    @pytest.mark.parametrize("wrong", ["*", "shop.example", "https://shop.example/", "https://*.example", "null"])
    def test_only_exact_origins_are_settings(self, wrong):
        with pytest.raises(ValueError, match="origin"):
            ServeConfig(origins=(wrong,))
        assert Config().serve.origins == ()


@pytest.mark.parametrize("wrong", ["*", "proxy.example", "10.0.0.1/8", ""])
def test_proxies_are_addresses(wrong):
    assert ServeConfig(trusted_proxies=("127.0.0.1", "10.0.0.0/8", "::1")).trusted_proxies[0] == "127.0.0.1"
    with pytest.raises(ValueError, match="trusted_proxies"):
        ServeConfig(trusted_proxies=(wrong,))
