"""Several server processes that share one socket: started, watched, and started again when one dies."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.web.server import listen, served, settings, url_of

START_S = 60  # a worker reads its libraries and its release before it says that it lives


def serve_workers(
    folder: Path, workers: int, host: str | None, port: int | None, announce: Callable[[str], None]
) -> None:
    """As `server.serve`, by several processes; each opens the workspace for itself.

    CallerError where the store takes one writing process only.
    """
    with Shop.open(folder) as shop:  # what is wrong is said here, once, and not by each worker again and again
        if not shop.takes_many_writers:
            raise CallerError(
                f"{workers} workers cannot record side by side on SQLite, which has one writer.",
                where="workers",
                next_step="Keep the store on Postgres ([store] url), or serve with one worker.",
            )
        host, port = host or shop.config.serve.host, shop.config.serve.port if port is None else port
    with listen(host, port) as listener:
        app = partial(_opened, folder)
        config = settings(app, factory=True, workers=workers, timeout_worker_healthcheck=START_S)
        _Workers(config, listener, announce).run()


class _Workers(Multiprocess):
    def __init__(self, config: Config, listener: socket.socket, announce: Callable[[str], None]) -> None:
        super().__init__(config, [listener])
        self._announce: Callable[[], None] | None = partial(announce, url_of(listener))

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        if self._announce and all(process.is_ready(timeout=1) for process in self.processes):
            self._announce()
            self._announce = None


def _opened(folder: Path) -> ASGIApp:
    """A worker's application, which closes the shop when it ends."""
    shop = Shop.open(folder)
    app = served(shop)

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            if scope["type"] == "lifespan":
                shop.close()

    return closing
