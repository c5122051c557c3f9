"""Several server processes that share one socket: started, watched, and started again when one dies."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from endcap.app.logs import configure
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.web.server import listen, served, settings, url_of

START_S = 60  # a worker reads its libraries and its release before it says that it lives


def serve_workers(
    folders: Sequence[Path], workers: int, host: str | None, port: int | None, announce: Callable[[str], None]
) -> None:
    """As `server.serve`, by several processes; each opens the workspaces for itself.

    CallerError where a store takes one writing process only.
    """
    with ExitStack() as opened:  # what is wrong is said here, once, and not by each worker again and again
        shops = [opened.enter_context(Shop.open(folder)) for folder in folders]
        for shop in shops:
            if not shop.takes_many_writers:
                raise CallerError(
                    f"{workers} workers cannot record side by side on SQLite, which has one writer.",
                    where="workers",
                    next_step="Keep the store on Postgres ([store] url), or serve with one worker.",
                )
        is_keyed, wanted = bool(shops[0].keys.known()), shops[0].config.serve
        served(*shops, keys_required=is_keyed)
    with listen(host or wanted.host, wanted.port if port is None else port, is_keyed=is_keyed) as listener:
        app = partial(_opened, tuple(folders), is_keyed)
        further = {"factory": True, "workers": workers, "timeout_worker_healthcheck": START_S}
        _Workers(settings(app, wanted.trusted_proxies, **further), listener, announce).run()


class _Workers(Multiprocess):
    def __init__(self, config: Config, listener: socket.socket, announce: Callable[[str], None]) -> None:
        super().__init__(config, [listener])
        self._announce: Callable[[], None] | None = partial(announce, url_of(listener))

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        if self._announce and all(process.is_ready(timeout=1) for process in self.processes):
            self._announce()
            self._announce = None


def _opened(folders: Sequence[Path], is_keyed: bool) -> ASGIApp:
    """A worker's application, which closes the shops when it ends. is_keyed: as it was when the socket was opened, for
    one that others can reach must never be served without keys, whatever becomes of the file."""
    opened = ExitStack()
    shops = [opened.enter_context(Shop.open(folder)) for folder in folders]
    configure(shops[0].config.log)
    app = served(*shops, keys_required=is_keyed)

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            if scope["type"] == "lifespan":
                opened.close()

    return closing
