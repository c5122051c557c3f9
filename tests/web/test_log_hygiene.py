"""Whatever is asked and whatever fails, no log says who asked for what, or with which key."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from endcap.core.errors import ServiceError
from endcap.core.faults import origin
from endcap.web.scopes import scope_of
from endcap.web.server import create_app

MARK = "S3CR3T"
ANSWERS = ("answer", "answer_many", "search", "search_picture", "similar", "user", "record", "publish", "rollback")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.fixture
def written(caplog):
    """Everything that any logger writes, as its text and every field of its record; nothing is too small to be kept."""
    caplog.set_level(logging.DEBUG)
    for name in ("endcap", "endcap.access", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)

    def read():
        formatter = logging.Formatter()
        # the client that asks logs what it asks for; it is no part of the server
        records = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
        return "\n".join(formatter.format(record) + repr(vars(record)) for record in records)

    return read


def ask_everything(client, tokens):
    """Every route with the mark in each place that a caller fills; with a good key, a wrong one and none."""
    event = {"event_type": "view", "user_id": MARK, "item_id": MARK, "query": MARK}
    bodies = [
        {},
        {"json": event},
        {"json": {"events": [{**event, "event_type": f"view {MARK}"}, {MARK: MARK}], MARK: MARK}},
        {"json": {"user_id": MARK, "cart": [MARK], "release": MARK}},
        {"content": f'{{"{MARK}": {MARK}'.encode(), "headers": {"Content-Type": "application/json"}},
        {"content": b"\xff" + MARK.encode(), "headers": {"Content-Type": f"image/{MARK}"}},
    ]
    sent = {"Cookie": MARK, "X-Request-Id": f"{MARK} is not safe to repeat", "Referer": MARK, "User-Agent": MARK}
    asked = {"user_id": MARK, "q": MARK, MARK: "1"}
    for path, methods in client.app.openapi()["paths"].items():
        place = path.replace("{item_id}", MARK).replace("{user_id}", quote(f"{MARK} /é"))
        for method in [*map(str.upper, methods), MARK]:
            token = tokens[scope_of(method, path) or "read"]
            good = {**sent, "Authorization": f"Bearer {token}"}
            for given in bodies:
                headers = {**good, **given.get("headers", {})}
                client.request(method, place, **given | {"headers": headers})
            client.request(method, place, params=asked, headers=good)
            client.request(method, place, params=asked, headers={**sent, "Authorization": f"Bearer {token}{MARK}"})
            client.request(method, place, params=asked, headers={**sent, "X-API-Key": MARK, "Content-Encoding": MARK})
    for place in (f"/{MARK}", f"/v1/users/{MARK}/", f"/v1/{MARK}?{MARK}"):
        client.get(place, headers={"Authorization": f"Bearer {tokens['admin']}"})


@pytest.mark.parametrize("failing", [None, KeyError, ServiceError])
def test_no_log_holds_what_callers_sent(shop, written, monkeypatch, failing):
    tokens = {scope: shop.keys.create(scope, [scope]).token for scope in ("read", "write", "admin")}

    def fail(*_, **__):
        raise failing("The store is closed." if failing is ServiceError else MARK) from ValueError(f"by {MARK}")

    for name in ANSWERS if failing else ():
        monkeypatch.setattr(shop, name, fail)
    with TestClient(create_app(shop)) as client:
        ask_everything(client, tokens)
    logged = written()
    assert "/v1/users/{user_id}" in logged
    assert MARK not in logged
    for token in tokens.values():
        assert token.split("_", 2)[2] not in logged
    if failing is KeyError:  # and where it came from is told
        assert re.search(r"KeyError \(.*test_log_hygiene\.py:\d+ in fail\)", logged)


def test_stages_that_give_way_tell_no_ids(shop, written, monkeypatch):
    release = shop._serving.current()[0]

    def fail(*_, **__):
        raise KeyError(MARK)

    for source in release.fitted.sources:
        monkeypatch.setattr(type(source), "weigh", fail)
        monkeypatch.setattr(type(source), "explain", fail)
    monkeypatch.setattr(release.searcher, "personal", fail)
    with TestClient(create_app(shop)) as client:
        client.get("/v1/recommendations", params={"user_id": MARK})
        client.get("/v1/search", params={"q": MARK})
    assert "KeyError" in written()
    assert MARK not in written()


def test_the_line_of_a_request(shop, caplog):
    caplog.set_level(logging.INFO, logger="endcap.access")
    key, token = shop.keys.create("k", ["read"])
    with TestClient(create_app(shop)) as client:
        client.get("/v1/users/ann", headers={"X-API-Key": token, "X-Request-Id": "r-1"})
        client.get("/v1/users/ann", headers={"X-Request-Id": "r-2"})
        client.get("/health/live", headers={"X-Request-Id": "r-3"})
    lines = [record.request for record in caplog.records if record.name == "endcap.access"]
    assert all(line.pop("duration_ms") >= 0 for line in lines)
    assert lines == [
        {"method": "GET", "route": "/v1/users/{user_id}", "status": 404, "request_id": "r-1", "key_id": key.id},
        {"method": "GET", "route": "-", "status": 401, "request_id": "r-2", "key_id": "-"},
        {"method": "GET", "route": "/health/live", "status": 200, "request_id": "r-3", "key_id": "-"},
    ]


def test_origin_tells_the_way_and_not_the_words():
    def deep(word):
        raise KeyError(word)

    try:
        try:
            deep(MARK)
        except KeyError as error:
            raise ValueError(MARK) from error
    except ValueError as error:
        told = origin(error)
    assert MARK not in told
    assert told.index("KeyError") < told.index(", then ValueError")
    assert "in deep" in told


UNDER_UVICORN = """
import logging, socket, sys, threading, httpx
from endcap.app.runtime import Shop
from endcap.web import server
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.getLogger("httpx").disabled = logging.getLogger("httpcore").disabled = True
for name in ("httpcore.connection", "httpcore.http11"):
    logging.getLogger(name).disabled = True
mark = "S3CR3T"

def ask(url):
    try:
        asked(url)
    finally:
        running.should_exit = True

def asked(url):
    with httpx.Client(base_url=url) as client:
        client.get(f"/v1/users/{mark}", params={"q": mark}, headers={"Authorization": f"Bearer {mark}"})
        client.get("/v1/recommendations", params={"user_id": mark})
    host, port = url.removeprefix("http://").split(":")
    post = "POST /v1/events HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Type: application/json\\r\\n"
    for raw in (
        f"GET /{mark} HTTP/1.1\\r\\n{mark}\\r\\n\\r\\n",
        f"{mark}\\r\\n\\r\\n",
        f"{post}Content-Length: -1\\r\\n\\r\\n{mark}",
        f"{post}Content-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n{mark}",
        f"{post}Content-Length: 5\\r\\nContent-Length: 6\\r\\n\\r\\n{mark}",
    ):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(raw.encode())
            assert connection.recv(20).startswith(b"HTTP/1.1 4"), "not refused"

class Stopped(server._Server):
    def __init__(self, config, announce):
        global running
        running = self
        config.log_level = logging.DEBUG
        logging.getLogger("uvicorn.error").setLevel(logging.DEBUG)
        super().__init__(config, announce)

server._Server = Stopped
with Shop.open(sys.argv[1]) as shop:
    server.serve(shop, port=0, announce=lambda url: threading.Thread(target=ask, args=(url,)).start())
"""


def test_a_real_server_says_nothing_either(folder):
    done = subprocess.run(
        [sys.executable, "-c", UNDER_UVICORN, str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert "Invalid HTTP request" in done.stderr
    assert MARK not in done.stdout + done.stderr
