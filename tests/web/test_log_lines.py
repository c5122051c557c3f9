"""What the server's log says of a request that fails, wherever in it that was."""

from __future__ import annotations

import io
import json
import logging

import pytest

from endcap.app.logs import LogConfig, configured


@pytest.fixture
def lines():
    """What is logged from now on, as JSON; call it to have the lines."""
    stream = io.StringIO()
    with configured(LogConfig(format="json"), stream):
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_fault_carries_the_request(client, shop, monkeypatch, lines):
    monkeypatch.setattr(shop, "answer_many", lambda queries: {}["secret"])
    assert client.get("/v1/recommendations", headers={"X-Request-Id": "abc-1"}).status_code == 500
    (fault,) = [line for line in lines() if line["level"] == "error"]
    assert fault["request_id"] == "abc-1"


def test_what_is_said_while_an_answer_is_made_carries_the_request(client, shop, monkeypatch, lines):
    answer = shop.answer_many

    def said(query):
        logging.getLogger("endcap.recommend").warning("A source failed")
        return answer(query)

    monkeypatch.setattr(shop, "answer_many", said)
    for request_id in ("abc-1", "abc-2"):
        client.get("/v1/recommendations", headers={"X-Request-Id": request_id})
    assert [line["request_id"] for line in lines() if line["level"] == "warning"] == ["abc-1", "abc-2"]
