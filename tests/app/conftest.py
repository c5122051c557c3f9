"""A small planted shop, trained once with two releases, and copied for each test."""

import shutil
from itertools import count

import pytest

from endcap.app.runtime import Shop
from endcap.data.synthetic import cycle_shop

SETTINGS = '[train]\nthreads = 1\nmoments = 2\nsources = ["buy_again", "transitions", "knn", "trending", "popular"]\n'


@pytest.fixture(scope="session")
def planted():
    return cycle_shop(users=120, items=24)


@pytest.fixture(scope="session")
def trained(planted, tmp_path_factory):
    folder = Shop.init(tmp_path_factory.mktemp("app") / "shop", SETTINGS)
    seconds = count()
    with Shop.open(folder, clock=lambda: planted.now_ms + 1000 * next(seconds)) as shop:
        shop.ingest(planted.dataset)
        shop.train()
        shop.train(evaluate=False)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "shop")


@pytest.fixture
def shop(folder, planted):
    with Shop.open(folder, clock=lambda: planted.now_ms) as opened:
        yield opened
