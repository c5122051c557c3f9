"""What holds for every answer: ids, headers, limits, errors in one shape; health; documents; where it may listen."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from endcap.app.limits import LimitsConfig
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.web.guard import Guard, LoopbackOnly, is_loopback
from endcap.web.server import create_app, serve

ERROR = {"what", "where", "next_step"}
MAX_BODY_BYTES = LimitsConfig().max_body_bytes


def test_health(client, shop):
    assert client.get("/health/live").json()["status"] == "ok"
    ready = client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {
        "ready": True,
        "release": shop.releases.current(),
        "items": 16,
        "users": 64,
        "last_seq": shop.store.last_seq(),
        "problem": "",
        "degraded": [],
    }


def test_not_ready_before_the_first_release(tmp_path, caplog):
    with Shop.open(tmp_path / "shop") as shop, TestClient(create_app(shop)) as client:
        assert client.get("/health/live").status_code == 200
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert "endcap train" in ready.json()["problem"]
        assert client.get("/v1/recommendations").status_code == 404
    assert "Not ready" in caplog.text


def test_published_release_is_taken_up(client, shop):
    published = shop.releases.current()
    newer = shop.train(evaluate=False, publish=False).manifest.release_id
    assert client.get("/v1/recommendations").json()["release"] == published
    shop.publish(newer)
    assert client.get("/v1/recommendations").json()["release"] == newer
    shop.rollback()
    assert client.get("/v1/recommendations").json()["release"] == published


def test_request_ids_are_repeated_or_made(client):
    assert client.get("/health/live", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    made = {client.get("/health/live").headers["X-Request-Id"] for _ in range(2)}
    assert len(made) == 2
    for bad in ("a b", "x" * 101, "<b>"):
        assert client.get("/health/live", headers={"X-Request-Id": bad}).headers["X-Request-Id"] != bad


@pytest.mark.parametrize("path", ["/health/live", "/nothing", "/v1/recommendations?n=0", "/docs"])
def test_headers_are_safe(client, path):
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "script" not in headers["Content-Security-Policy"]


def test_unexpected_errors_tell_nothing_and_are_logged(shop, monkeypatch, caplog):
    monkeypatch.setattr(shop, "answer_many", lambda queries: {}["secret"])
    with TestClient(create_app(shop)) as client:
        answer = client.get("/v1/recommendations", headers={"X-Request-Id": "abc-1"})
    assert answer.status_code == 500
    assert set(answer.json()["error"]) == ERROR
    assert "secret" not in answer.text
    assert "abc-1" in answer.text
    assert answer.headers["X-Request-Id"] == "abc-1"
    assert any("abc-1 failed: GET /v1/recommendations: KeyError (" in record.getMessage() for record in caplog.records)


def test_our_own_failures_are_503_and_logged(client, shop, caplog):
    shop.close()
    answer = client.get("/v1/users/u", headers={"X-Request-Id": "abc-2"})
    assert answer.status_code == 503
    assert answer.json()["error"]["what"] == "The store is closed."
    assert any("abc-2" in record.getMessage() and record.levelno == logging.ERROR for record in caplog.records)


def test_unknown_routes_and_methods(client):
    assert client.get("/nothing").status_code == 404
    assert client.delete("/v1/events").status_code == 405
    assert set(client.delete("/v1/events").json()["error"]) == ERROR
    for path, allowed in (("/v1/recommendations", "GET, POST"), ("/v1/events", "POST"), ("/openapi.json", "GET, HEAD")):
        answer = client.delete(path)
        assert answer.headers["Allow"] == allowed
        assert allowed in answer.json()["error"]["what"]


def test_a_slash_too_many_leads_nowhere(client):
    assert client.get("/health/live/", follow_redirects=False).status_code == 404
    assert client.head("/health/live").status_code == client.head("/health/ready").status_code == 200


def test_a_full_disk_is_said(client, caplog):
    def fill():
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    client.app.add_api_route("/health/live/full", fill)
    answer = client.get("/health/live/full")
    assert answer.status_code == 503
    assert "No space left" in answer.json()["error"]["what"]
    assert "No space left" in caplog.text


@pytest.mark.parametrize("is_declared", [True, False])
def test_bodies_are_limited(client, is_declared):
    body = b" " * (MAX_BODY_BYTES + 1)
    content = body if is_declared else iter([body[:1000], body[1000:]])
    answer = client.post("/v1/events", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert set(answer.json()["error"]) == ERROR
    assert client.get("/health/live").status_code == 200


def test_body_of_the_largest_size_is_read(client):
    event = b'{"event_type": "view", "user_id": "u", "item_id": "dairy-000"}'
    body = event + b" " * (MAX_BODY_BYTES - len(event))
    headers = {"Content-Type": "application/json"}
    assert client.post("/v1/events", content=body, headers=headers).status_code == 200
    assert client.post("/v1/events", content=iter([body]), headers=headers).status_code == 200


def test_document_describes_every_route(client):
    document = client.get("/openapi.json").json()
    assert len(document["paths"]) >= 39
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route["summary"], (method, path)
            assert route["description"], (method, path)
    text = client.get("/openapi.json").text
    for name in ("EventIn", "EventsIn", "Line", "SlateAnswer", "ErrorAnswer"):
        assert name in document["components"]["schemas"]
    for reference in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in document["components"]["schemas"]


def test_examples_of_the_document_are_valid(client):
    document = client.get("/openapi.json").json()
    for example in document["components"]["schemas"]["EventIn"]["examples"]:
        assert client.post("/v1/events", json=example).status_code == 200
    for example in document["components"]["schemas"]["RecommendIn"]["examples"]:
        assert client.post("/v1/recommendations", json=example).status_code == 200


def test_page_of_routes_loads_nothing_from_elsewhere(client):
    page = client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "POST /v1/events" in page.text
    assert "<script" not in page.text
    assert "http" not in page.text.replace("<code>http", "")


def test_only_this_machine_is_answered(shop):
    with TestClient(LoopbackOnly(create_app(shop)), base_url="http://127.0.0.1:8765") as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/live", headers={"Host": "localhost:8765"}).status_code == 200
        assert client.get("/health/live", headers={"Host": "LocalHost:8765"}).status_code == 200
        assert client.get("/health/live", headers={"Host": "[::1]:8765"}).status_code == 200
        refused = client.get("/health/live", headers={"Host": "shop.example"})
        assert refused.status_code == 403
        assert set(refused.json()["error"]) == ERROR


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org")))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_are_not_let_in(shop, host):
    with pytest.raises(CallerError, match="API keys"):
        serve(shop, host, 0)


def test_port_that_is_taken(shop):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CallerError, match="--port"):
            serve(shop, "127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_port_that_is_none(shop, port):
    with pytest.raises(CallerError, match="65535"):
        serve(shop, "127.0.0.1", port)


def test_a_half_sent_request_is_answered_when_the_server_stops(client):
    """The server cancels what is still open after its time of grace."""
    sent = []

    async def receive():
        await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    async def stopped():
        scope = {"type": "http", "method": "POST", "path": "/v1/events", "headers": [(b"content-length", b"10")]}
        request = asyncio.create_task(Guard(client.app)(scope, receive, send))
        await asyncio.sleep(0)
        request.cancel()
        await request

    asyncio.run(stopped())
    assert sent[0]["status"] == 503
    assert b"stopping" in sent[1]["body"]
