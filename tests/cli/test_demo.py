"""The demo, on a small shop: in one go, and a second time on what the first left."""

from __future__ import annotations

import os
import socket

import pytest

from endcap.app.runtime import Shop
from endcap.core.errors import CallerError, ServiceError
from endcap.core.types import Event, EventType
from endcap.data.datasets import DATASETS
from endcap.data.synthetic import cycle_shop

CONFIG = '[train]\nsources = ["transitions", "popular"]\nmoments = 1\nthreads = 1\n'


@pytest.fixture
def place(tmp_path):
    Shop.init(tmp_path / "demo-shop")
    (tmp_path / "demo-shop" / "endcap.toml").write_text(CONFIG)
    return tmp_path / "demo-shop"


def test_demo_goes_from_data_to_answers(endcap, place):
    arguments = ("demo", "--no-serve", "--folder", place, "--dataset", "cycle-shop")
    text = endcap(*arguments).stdout
    assert "rows out" in text
    assert "ndcg@10" in text
    assert "is published" in text
    assert "Five for household shopper-" in text
    assert "in the cart" in text
    assert f"endcap serve --shop {place}" in text.replace("\n", "")
    with Shop.open(place) as shop:
        events = shop.store.last_seq()
    assert "is used as it is" in endcap(*arguments).stdout
    with Shop.open(place) as shop:
        assert shop.store.last_seq() == events
        assert len(shop.releases.list()) == 2


def test_demo_ends_as_the_server(endcap, place, monkeypatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: started.append(arguments))
    text = endcap("demo", "--folder", place, "--dataset", "cycle-shop", "--port", 8901).stdout
    assert started[0][1:] == ["-m", "endcap", "serve", "--shop", str(place), "--port", "8901"]
    urls = [line.strip() for line in text.splitlines() if line.strip().startswith("http://127.0.0.1:8901/v1/")]
    assert len(urls) == 3
    (curl,) = [line for line in text.splitlines() if "curl" in line]
    assert curl.count("/v1/recommendations?user_id=shopper-") == 2
    assert '"event_type": "add_to_cart"' in curl


def test_fresh_starts_over(endcap, endcap_json, place):
    with Shop.open(place) as shop:
        shop.ingest_dataset("cycle-shop")
        events = shop.store.last_seq()
        shop.record(Event(event_type=EventType.VIEW, user_id="u", item_id="dairy-000", ts_ms=shop.clock()))
    (place / "endcap.toml").unlink()
    with pytest.raises(CallerError, match="no workspace"):
        endcap("demo", "--no-serve", "--fresh", "--folder", place)
    (place / "endcap.toml").write_text("")
    endcap("demo", "--no-serve", "--fresh", "--folder", place, "--dataset", "cycle-shop")
    with Shop.open(place) as shop:
        assert shop.store.last_seq() == events


def test_fresh_is_refused_while_a_server_writes(endcap, place):
    with Shop.open(place) as shop:
        before = shop.record(Event(event_type=EventType.VIEW, user_id="u", item_id="a", ts_ms=shop.clock()))
        with pytest.raises(ServiceError, match="endcap serve"):
            endcap("demo", "--no-serve", "--fresh", "--folder", place)
    with Shop.open(place) as shop:
        assert shop.store.last_seq() == before.last_seq


def test_a_busy_port_is_found_before_the_work(endcap, place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CallerError, match="--port"):
            endcap("demo", "--folder", place, "--dataset", "cycle-shop", "--port", taken.getsockname()[1])
    with Shop.open(place) as shop:
        assert shop.store.last_seq() == 0


def test_a_port_taken_meanwhile_names_the_way_on(endcap, place, monkeypatch):
    taken = socket.socket()

    def taking():
        taken.bind(("127.0.0.1", port))
        taken.listen()
        return cycle_shop().dataset

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setitem(DATASETS._known, "taking", taking)
    with taken, pytest.raises(CallerError, match=f"endcap serve --shop {place} --port {port}"):
        endcap("demo", "--folder", place, "--dataset", "taking", "--port", port)
    with Shop.open(place) as shop:
        assert shop.releases.current()


def test_a_file_in_the_way_is_a_sentence(endcap, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CallerError, match="cannot be made: File exists"):
        endcap("demo", "--no-serve", "--folder", tmp_path / "file")
