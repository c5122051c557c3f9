"""Several server processes that share one socket: started, watched, and started again when one dies."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Thread

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from endcap.app.logs import configure
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.web.server import listen, served, settings, url_of

LOG = logging.getLogger(__name__)
START_S = 600
LOOK_AGAIN_S = 0.5


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
        config = settings(
            partial(_opened, tuple(folders), is_keyed), wanted.trusted_proxies, factory=True, workers=workers
        )
        _Workers(config, listener, partial(announce, url_of(listener))).run()


class _Workers(Multiprocess):
    """announce: is called once every worker takes requests."""

    def __init__(self, config: Config, listener: socket.socket, announce: Callable[[], None]) -> None:
        super().__init__(config, [listener])
        self._announce = announce

    def init_processes(self) -> None:
        super().init_processes()
        Thread(target=self._tell, name="endcap-workers", daemon=True).start()

    def keep_subprocess_alive(self) -> None:
        """Start a worker again that ended. What it replaces also asks each worker whether it lives, and takes one that
        is still reading its libraries for one that hangs."""
        for place, worker in enumerate(self.processes):
            if worker.process.is_alive() or self.should_exit.is_set():
                continue
            LOG.warning("Worker %s ended with code %s; another one is started.", worker.pid, worker.exitcode)
            worker.join()
            self.processes[place] = Process(self.config, self.sockets)
            self.processes[place].start()

    def _tell(self) -> None:
        while not self.should_exit.is_set():
            if all(worker.wait_until_ready(START_S, self.should_exit) for worker in tuple(self.processes)):
                self._announce()
                return
            self.should_exit.wait(LOOK_AGAIN_S)


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
