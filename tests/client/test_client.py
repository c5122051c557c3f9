"""The client against a server that listens: typed answers, the server's sentences, and sending again."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from contextlib import closing
from random import Random

import pytest

from endcap.client import AsyncClient, Client, Retries, Slate, calls
from endcap.core.errors import CallerError, NotFoundError, ServiceError, TooManyError
from endcap.core.types import Event, EventType, Item

AT_ONCE = Retries(times=3, base_s=0.0)


class Refusing:
    """Answers the first requests with a status, and hands the others on; remembers what it was sent."""

    def __init__(self, app, *statuses, headers=()):
        self.app, self.statuses, self.headers = app, list(statuses), list(headers)
        self.seen = []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.seen.append((scope["path"], dict(scope["headers"]), body))
        if self.statuses:
            await send({"type": "http.response.start", "status": self.statuses.pop(0), "headers": self.headers})
            await send({"type": "http.response.body", "body": b""})
            return

        async def again():
            return {"type": "http.request", "body": body}

        await self.app(scope, again, send)


@pytest.fixture
def client(url):
    with Client(url, retries=AT_ONCE) as opened:
        yield opened


def test_the_next_answer_knows_what_was_recorded(client, after):
    event = Event(event_type=EventType.PURCHASE, user_id="newcomer", ts_ms=1_767_300_000_000, item_id="dairy-000")
    recorded = client.record(event)
    assert (len(recorded.accepted), recorded.rejected) == (1, ())
    slate = client.recommend("newcomer", n=1, placement="discovery")
    assert slate.item_ids() == [after["dairy-000"]]
    assert slate.items[0].reason.startswith("Often bought after")
    assert client.user("newcomer").favourites == ("dairy-000",)


def test_events_are_judged_each_on_its_own(client):
    rows = [{"event_type": "view", "user_id": "u", "item_id": "dairy-000"}, {"event_type": "view", "user_id": "u"}]
    recorded = client.record_many(rows)
    assert len(recorded.accepted) == 1
    assert recorded.rejected[0].position == 1
    assert "needs an item" in recorded.rejected[0].reason
    for number in (0, 1001):
        with pytest.raises(CallerError, match=f"{number} events"):
            client.record_many(rows[:1] * number)


def test_pages_follow_one_another(client):
    first = client.recommend(n=6, exclude=["dairy-000"])
    second = client.more(first)
    third = client.more(second, n=10)
    shown = [*first.item_ids(), *second.item_ids(), *third.item_ids()]
    assert [len(page.items) for page in (first, second, third)] == [6, 6, 3]
    assert len(set(shown)) == 15
    assert "dairy-000" not in shown
    with pytest.raises(CallerError, match="recommend"):
        client.more(client.similar("dairy-000"))


def test_similar_and_search(client, after):
    assert client.similar("dairy-000", n=1).item_ids() == [after["dairy-000"]]
    with pytest.raises(NotFoundError, match="no item"):
        client.similar("nothing/such")
    found = client.search("dairy", n=2, exclude=["dairy-000"])
    assert isinstance(found, Slate)
    assert "dairy-000" not in found.item_ids()


def test_the_catalogue_is_changed(client):
    put = client.put_items([Item(item_id="a/b", title="Oats", price=2.0), {"item_id": "bad", "price": -1}])
    assert put.accepted == ("a/b",)
    assert put.rejected[0].position == 1
    assert client.patch_item("a/b", price=2.5, availability="hidden") == client.item("a/b")
    assert client.item("a/b").price == 2.5
    assert client.patch_item("a/b", title="50%2F?").title == "50%2F?"
    assert client.put_items([{"item_id": "50%2F?"}]).accepted == (client.item("50%2F?").item_id,)
    for dots in (".", ".."):
        assert client.put_items([{"item_id": dots}]).accepted == (client.item(dots).item_id,)
        assert client.delete_item(dots) is True
    assert client.delete_item("a/b") is True
    assert client.delete_item("a/b") is False
    with pytest.raises(NotFoundError):
        client.item("a/b")
    assert client.put_user("u", {"city": "Oslo"}).attributes == {"city": "Oslo"}
    assert client.user("u").attributes == {"city": "Oslo"}


def test_errors_are_ours_with_the_servers_sentence(client):
    with pytest.raises(CallerError, match=r"n: n is 0\. Ask for 1 to 500 items\."):
        client.recommend(n=0)
    with pytest.raises(NotFoundError, match="nobody"):
        client.user("nobody")
    with pytest.raises(CallerError, match="http://host:port"):
        Client("shop.example")


def test_health_says_what_is_wrong(client, shop):
    assert client.health().ready
    shop.close()
    health = client.health()
    assert (health.ready, health.problem.count("closed")) == (True, 1)  # answers go on without the log


@pytest.mark.parametrize("statuses", [(503,), (429, 502, 504)])
def test_what_was_refused_is_sent_again_as_it_was(app, shop, statuses, listening):
    refusing = Refusing(app, *statuses)
    before = shop.store.last_seq()
    with listening(refusing) as url, Client(url, api_key="secret", retries=AT_ONCE) as client:
        client.record({"event_type": "view", "user_id": "u", "item_id": "dairy-000"})
        assert len({body for _, _, body in refusing.seen}) == 1
        assert len(refusing.seen) == len(statuses) + 1
        client.recommend("u")
    assert shop.store.last_seq() == before + 1
    assert all(headers[b"x-api-key"] == b"secret" for _, headers, _ in refusing.seen)
    assert b"idempotency-key" in refusing.seen[-1][1]


def test_an_answer_that_was_lost_is_recorded_once(app, shop, listening):
    """The server records the event, and its answer is a 503 of something between."""

    async def losing(scope, receive, send):
        sent = []

        async def keep(message):
            sent.append(message)

        await app(scope, receive, keep)
        if not lost:
            lost.append(1)
            sent = [{**sent[0], "status": 503}, *sent[1:]]
        for message in sent:
            await send(message)

    lost: list[int] = []
    before = shop.store.last_seq()
    with listening(losing) as url, Client(url, retries=AT_ONCE) as client:
        recorded = client.record({"event_type": "view", "user_id": "u", "item_id": "dairy-000"})
    assert len(recorded.duplicates) == 1
    assert shop.store.last_seq() == before + 1


def test_trying_has_an_end(app, listening):
    refusing = Refusing(app, *[429] * 9)
    with listening(refusing) as url, Client(url, retries=AT_ONCE) as client:
        with pytest.raises(TooManyError):
            client.user("u")
        assert len(refusing.seen) == 4
    with Client(url, retries=AT_ONCE) as client, pytest.raises(ServiceError, match="endcap serve"):
        client.user("u")


def test_a_server_that_asks_for_too_long_a_wait_is_left_alone(app, listening):
    refusing = Refusing(app, 429, 429, headers=[(b"retry-after", b"3600")])
    with listening(refusing) as url, Client(url, retries=AT_ONCE) as client, pytest.raises(TooManyError) as raised:
        client.user("u")
    assert raised.value.retry_after_s == 3600
    assert len(refusing.seen) == 1


def test_wrong_requests_are_not_sent_again(app, listening):
    refusing = Refusing(app, 422, 500)
    with listening(refusing) as url, Client(url, retries=AT_ONCE) as client:
        with pytest.raises(CallerError, match="422"):
            client.user("u")
        with pytest.raises(ServiceError, match="500"):
            client.user("u")
    assert len(refusing.seen) == 2


def test_another_server_is_recognised(listening):
    async def other(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>"})

    with listening(other) as url, Client(url) as client, pytest.raises(ServiceError, match="not what was expected"):
        client.recommend()


def test_waits_are_drawn_and_grow_to_a_limit():
    retries = Retries(times=5, base_s=1.0, longest_s=4.0, draw=Random(0))
    waits = [[retries.wait_s(attempt) for _ in range(200)] for attempt in range(5)]
    for attempt, most in enumerate((1, 2, 4, 4, 4)):
        assert 0 <= min(waits[attempt]) < most / 10
        assert most * 0.9 < max(waits[attempt]) <= most
    assert retries.wait_s(5) is None
    assert 3 <= retries.wait_s(0, 3.0) <= 4
    assert retries.wait_s(0, 4.1) is None


def test_async_does_the_same(url, after):
    async def visit():
        async with AsyncClient(url, retries=AT_ONCE) as client:
            await client.record({"event_type": "purchase", "user_id": "n", "item_id": "dairy-000"})
            slates = await asyncio.gather(*(client.recommend("n", n=1, placement="discovery") for _ in range(3)))
            with pytest.raises(NotFoundError):
                await client.user("nobody")
            return slates

    assert [slate.item_ids() for slate in asyncio.run(visit())] == [[after["dairy-000"]]] * 3


def test_async_is_sent_again(app, listening):
    refusing = Refusing(app, 503, 503)

    async def ask(url):
        async with AsyncClient(url, retries=AT_ONCE) as client:
            return await client.health(), await client.recommend(n=1)

    with listening(refusing) as url, pytest.raises(ServiceError):
        asyncio.run(ask(url))
    refusing.statuses = []
    with listening(refusing) as url:
        health, slate = asyncio.run(ask(url))
    assert health.ready
    assert len(slate.items) == 1


def test_both_clients_have_every_call():
    made = {
        name
        for name, value in vars(calls).items()
        if inspect.isfunction(value) and value.__module__ == calls.__name__ and not name.startswith("_")
    } - {"problem_of"}
    assert made
    for kind in (Client, AsyncClient):
        for name in made:
            assert getattr(kind, name).__doc__ == getattr(calls, name).__doc__


def test_a_client_starts_without_the_server():
    heavy = [
        "fastapi",
        "uvicorn",
        "starlette",
        "pydantic",
        "polars",
        "lightgbm",
        "onnxruntime",
        "apsw",
        "scipy",
        "httpx",
    ]
    asked = f"import sys, endcap.client; print(sorted(set({heavy!r}) & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"


def test_connections_are_used_again(app, listening):
    ports = set()

    async def counting(scope, receive, send):
        ports.add(scope["client"][1])
        await app(scope, receive, send)

    with listening(counting) as url, closing(Client(url)) as client:
        for _ in range(5):
            client.health()
    assert len(ports) == 1
