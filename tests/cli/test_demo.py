"""The demo, on a small shop: in one go, and a second time on what the first left."""

from __future__ import annotations

import os

import pytest

from endcap.app.runtime import Shop
from endcap.cli import demo
from endcap.core.errors import CallerError

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


def test_fresh_deletes_workspaces_only(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(CallerError, match="no workspace"):
        demo._delete(tmp_path / "photos")
    assert (tmp_path / "photos").is_dir()
    Shop.init(tmp_path / "shop")
    demo._delete(tmp_path / "shop")
    demo._delete(tmp_path / "shop")
    assert not (tmp_path / "shop").exists()
