"""A server that really listens, over the small shop of tests/web."""

from __future__ import annotations

import shutil
import socket
import threading
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import uvicorn

from endcap.app.runtime import Shop
from endcap.data.synthetic import cycle_shop
from endcap.web.server import create_app

CONFIG = '[train]\nsources = ["transitions"]\nmoments = 1\nthreads = 1\n'


@pytest.fixture
def listening():
    """Serves an ASGI app on a free port for the length of a block."""
    return _listening


@contextmanager
def _listening(app: Any):
    """The URL of an ASGI app that is served until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def planted():
    return cycle_shop(users=64, items=16)


@pytest.fixture(scope="session")
def after(planted):
    """item -> the one that is always bought next."""
    events = planted.dataset.events.sort("user_id", "ts_ms").select("user_id", "item_id").collect().rows()
    return {here[1]: there[1] for here, there in pairwise(events) if here[0] == there[0]}


@pytest.fixture(scope="session")
def trained(planted, tmp_path_factory):
    folder = Shop.init(tmp_path_factory.mktemp("trained") / "shop")
    (folder / "endcap.toml").write_text(CONFIG)
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        shop.ingest(planted.dataset)
        shop.train(evaluate=False)
    return folder


@pytest.fixture
def shop(trained, planted, tmp_path):
    with Shop.open(shutil.copytree(trained, tmp_path / "shop"), clock=lambda: planted.now_ms) as opened:
        yield opened


@pytest.fixture
def app(shop):
    return create_app(shop)


@pytest.fixture
def url(app, listening):
    with listening(app) as found:
        yield found
