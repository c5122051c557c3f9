"""A small shop in which every item is followed by one other, trained once and copied for each test."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from endcap.app.runtime import Shop
from endcap.data.synthetic import PlantedShop, cycle_shop
from endcap.web.server import create_app

CONFIG = '[train]\nsources = ["transitions"]\nmoments = 1\nthreads = 1\n'


@pytest.fixture(scope="session")
def planted() -> PlantedShop:
    return cycle_shop(users=64, items=16)


@pytest.fixture(scope="session")
def after(planted) -> dict[str, str]:
    """item -> the one that is always bought next."""
    events = planted.dataset.events.sort("user_id", "ts_ms").select("user_id", "item_id").collect().rows()
    return {here[1]: there[1] for here, there in pairwise(events) if here[0] == there[0]}


@pytest.fixture(scope="session")
def trained(planted, tmp_path_factory) -> Path:
    folder = Shop.init(tmp_path_factory.mktemp("trained") / "shop")
    (folder / "endcap.toml").write_text(CONFIG)
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        shop.ingest(planted.dataset)
        shop.train(evaluate=False)
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "shop")


@pytest.fixture
def shop(folder, planted):
    with Shop.open(folder, clock=lambda: planted.now_ms) as opened:
        yield opened


@pytest.fixture
def client(shop):
    with TestClient(create_app(shop)) as client:
        yield client


@pytest.fixture
def trained_with(trained, tmp_path):
    """A copy of the shop whose config has something more."""

    def make(settings: str) -> Path:
        folder = shutil.copytree(trained, tmp_path / "configured")
        (folder / "endcap.toml").write_text(CONFIG + settings)
        return folder

    return make
