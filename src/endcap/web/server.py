"""Putting the routes together, and running them until told to stop."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from endcap import __version__
from endcap.app.runtime import Shop
from endcap.app.tenants import Tenants
from endcap.core.errors import CallerError
from endcap.web import (
    metrics,
    routes_admin,
    routes_docs,
    routes_events,
    routes_health,
    routes_items,
    routes_recommendations,
    routes_search,
    routes_users,
)
from endcap.web.access import Access
from endcap.web.answers import Queries, answer_threads
from endcap.web.bodies import Bodies
from endcap.web.catalogue_schemas import with_items
from endcap.web.direct import Direct
from endcap.web.document import completed
from endcap.web.gorse import routes_catalogue, routes_feedback, routes_lists
from endcap.web.guard import Guard, LoopbackOnly, is_loopback
from endcap.web.metrics import Measured, Metrics, watching
from endcap.web.openapi import with_messages
from endcap.web.origins import Origins
from endcap.web.problems import add_error_handlers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from starlette.types import ASGIApp

LOG = logging.getLogger(__name__)
ROUTES = (
    routes_events,
    routes_recommendations,
    routes_search,
    routes_items,
    routes_users,
    routes_feedback,
    routes_catalogue,
    routes_lists,
    routes_admin,
    routes_health,
    metrics,
    routes_docs,
)
DIRECT = frozenset({"/v1/events", "/v1/recommendations"})
GRACE_S = 10
MAX_PORT = 65535


def create_app(*shops: Shop, keys_required: bool = False) -> FastAPI:
    """The HTTP interface of one shop, or of several, of which a request reaches the one that its key is of. Whoever
    opened a shop closes it.

    keys_required: also while the shop has no key. Several shops always need them.
    """
    app = FastAPI(
        title="Endcap",
        version=__version__,
        summary="Live, personalised recommendations for a shop.",
        description="Send events as they happen; ask for slates. Times are UTC milliseconds, names are snake_case.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.is_alone = False
    app.state.tenants = Tenants(shops, keys_required=keys_required)
    app.state.metrics = Metrics()
    app.state.media, app.state.answers, app.state.gorse = {}, answer_threads(), WeakKeyDictionary()
    app.state.queries = Queries(app.state.answers)
    app.state.routes = [*app.routes, *(route for routes in ROUTES for route in routes.router.routes)]
    add_error_handlers(app)
    app.add_middleware(Direct, [route for route in app.state.routes if route.path in DIRECT])
    app.add_middleware(Bodies)
    app.add_middleware(Access, app.state.tenants)
    if shops[0].config.serve.origins:
        app.add_middleware(Origins, shops[0].config.serve.origins)
    app.add_middleware(Guard)
    app.add_middleware(Measured, metrics=app.state.metrics)  # the last that is added is the first that a request meets
    for routes in ROUTES:
        app.include_router(routes.router)
    generate = app.openapi
    most = shops[0].config.limits.max_batch
    app.openapi = cache(lambda: completed(with_items(with_messages(generate())), most))  # type: ignore[method-assign]
    return app


def serve(
    shop: Shop,
    host: str | None = None,
    port: int | None = None,
    announce: Callable[[str], None] = LOG.info,
    *,
    beside: Sequence[Shop] = (),
) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish what was begun and return.

    host, port: default to the shop's config; port 0 takes a free one. announce: is told the base URL once requests are
    taken. beside: further shops, each reached by its own keys. CallerError for an address that others can reach while
    there are no keys to tell callers apart, for several shops one of which has none, and for a port that is taken.
    """
    is_keyed = bool(shop.keys.known())
    app = served(shop, *beside, keys_required=is_keyed)
    wanted = shop.config.serve
    listener = listen(host or wanted.host, wanted.port if port is None else port, is_keyed=is_keyed)
    config = settings(app, wanted.trusted_proxies)
    server = _Server(config, lambda: announce(url_of(listener)))
    with listener, _stopping(server):
        server.run(sockets=[listener])


def served(*shops: Shop, keys_required: bool) -> ASGIApp:
    """The interface as the server runs it, with what depends on who can reach it.

    CallerError for shops that share a key, and for one that nobody could reach.
    """
    app = create_app(*shops, keys_required=keys_required)
    app.state.tenants.check()
    app.state.is_alone = True
    return app if keys_required else LoopbackOnly(app)


def settings(app: Callable[..., Any], trusted_proxies: Sequence[str] = (), **further: Any) -> uvicorn.Config:
    """How uvicorn runs an application. trusted_proxies: whose X-Forwarded-For is believed. further: of its own
    settings."""
    return uvicorn.Config(
        app,
        log_config=None,  # what it has to say goes the way of everything that is logged
        log_level="warning",
        access_log=False,  # it would keep who looked at what
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=GRACE_S,
        **further,
    )


def free_port(host: str, port: int, *, is_keyed: bool = False) -> int:
    """A port that can be had at this moment: the one given, or any for 0. CallerError where there is none."""
    with listen(host, port, is_keyed=is_keyed) as listener:
        found: int = listener.getsockname()[1]
    return found


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the release before the first request rather than during it."""
    for shop in app.state.tenants.shops:
        health = await run_in_threadpool(shop.health)
        if not health.ready:
            LOG.warning("Not ready: %s", health.problem)
    if app.state.is_alone:
        settle()
    async with watching(app.state.tenants.shops, app.state.metrics):
        yield
    app.state.answers.shutdown(wait=False)


def settle() -> None:
    """Make a process one that only answers: what is loaded stays, so the garbage collector need not look through it
    again and again; a thread that waits for its turn gets it after a millisecond, not after five; and lines of the log
    are not asked which thread, process, task and line of code they come from, which no format of ours says."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    sys.setswitchinterval(0.001)
    for part in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, part, False)
    logging._srcfile = None  # as the logging HOWTO says, under "Optimization"


@contextmanager
def _stopping(server: uvicorn.Server) -> Iterator[None]:
    """uvicorn raises the signal that stopped it once more when it is done. Here that ends nothing: returning does."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(host: str, port: int, *, is_keyed: bool) -> socket.socket:
    if not is_keyed and not is_loopback(host):
        raise CallerError(
            f"{host} can be reached from other machines, and there are no API keys yet to tell callers apart.",
            where="host",
            next_step="Make one with `endcap keys create`, or use 127.0.0.1.",
        )
    if not 0 <= port <= MAX_PORT:
        raise CallerError(
            f"{port} is no port.", where="port", next_step=f"Choose one up to {MAX_PORT}; 0 takes one that is free."
        )
    # asyncio sends small parts of an answer at once (TCP_NODELAY) only where the socket says that it is TCP; without, a
    # client that keeps its connection waits 40 ms for each answer
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise CallerError(
            f"Port {port} cannot be used: {error.strerror}.", where=host, next_step="Choose another with --port."
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
