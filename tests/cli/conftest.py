"""A workspace with a small trained shop, and a way to call the command line in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from endcap.app.runtime import Shop
from endcap.cli.main import app
from endcap.data.synthetic import PlantedShop, cycle_shop

CONFIG = '[train]\nsources = ["transitions"]\nmoments = 1\nthreads = 1\n'
Endcap = Callable[..., Result]


@pytest.fixture(scope="session")
def planted() -> PlantedShop:
    return cycle_shop(users=64, items=16)


@pytest.fixture(scope="session")
def trained(planted, tmp_path_factory) -> Path:
    folder = Shop.init(tmp_path_factory.mktemp("trained") / "shop")
    (folder / "endcap.toml").write_text(CONFIG)
    with Shop.open(folder) as shop:
        shop.ingest(planted.dataset)
        shop.train()
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "shop")


@pytest.fixture
def files(planted, tmp_path) -> tuple[Path, Path]:
    """The planted shop's events as CSV, with one row that is refused, and its items as JSON lines."""
    events, items = tmp_path / "events.csv", tmp_path / "items.jsonl"
    planted.dataset.events.select("event_type", "user_id", "item_id", "ts_ms").collect().write_csv(events)
    with events.open("a") as file:
        file.write("purchase,,dairy-000,1767300000000\n")
    planted.dataset.items.select("item_id", "title", "price").write_ndjson(items)
    return events, items


@pytest.fixture
def endcap() -> Endcap:
    """Calls a command and fails the test where it fails."""

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    return call


@pytest.fixture
def endcap_json(endcap) -> Callable[..., Any]:
    return lambda *arguments: json.loads(endcap(*arguments, "--json").stdout)
