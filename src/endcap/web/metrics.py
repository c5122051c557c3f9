"""GET /metrics and what is counted of every request.

Each app has a registry of its own. With several workers (`app.watching.shared_counts`) the counts of all of them are
added up from their files; each brings its gauges up to date every few seconds, as any may be the one that is asked.
Routes are templates, and what matches none is one label, so that no caller can make series at will.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Lock

from fastapi import APIRouter, Request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from endcap import __version__
from endcap.app.runtime import Shop
from endcap.app.watching import SHARED, Watched, instruments
from endcap.web.access_log import METHODS
from endcap.web.decoding import no_parameters
from endcap.web.deps import ShopDep

router = APIRouter(tags=["health"])
REQUEST_S = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0065, 0.008, 0.01, 0.0125, 0.015, 0.02),
    *(0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
REFUSED = {401: "no_key", 403: "forbidden", 408: "slow_body", 413: "too_large", 429: "rate_limit", 503: "unavailable"}
UNMATCHED = "unmatched"
UNANSWERED = "none"
REFRESH_S = 5.0


class Metrics:
    """The registry of one app, and what is counted of its requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._instruments = instruments(self.registry)
        self._watched: list[Watched] = []
        self._looking = Lock()
        labels = ("route", "method", "status")
        self._requests = Histogram(
            "endcap_http_request_seconds", "Time of a request.", labels, buckets=REQUEST_S, registry=self.registry
        )
        self._refused = Counter(
            "endcap_http_refused", "Requests turned away, by why.", ("reason",), registry=self.registry
        )
        self._errors = Counter(
            "endcap_errors", "Errors that were answered, by kind.", ("kind",), registry=self.registry
        )
        self._lookups = Counter(
            "endcap_cache_lookups",
            "Answers that were looked for among those remembered.",
            ("cache", "outcome"),
            registry=self.registry,
        )
        version = Gauge(
            "endcap_version_info",
            "1, with the version that runs.",
            ("version",),
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        version.labels(__version__).set(1)
        self._by_request: dict[tuple[str, str, int], Histogram] = {}
        self._by_status = {status: self._refused.labels(reason) for status, reason in REFUSED.items()}
        self._by_kind: dict[str, Counter] = {}
        self._shared = _Workers(self.registry) if SHARED in os.environ else None
        if self._shared is None:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """status: 0 where the connection went before there was one."""
        child = self._by_request.get((route, method, status))
        if child is None:
            child = self._requests.labels(route, method, status or UNANSWERED)
            self._by_request[route, method, status] = child
        child.observe(seconds)
        if status in self._by_status:
            self._by_status[status].inc()

    def error(self, kind: str) -> None:
        """kind: the name of an error's class."""
        child = self._by_kind.get(kind)
        if child is None:
            child = self._by_kind[kind] = self._errors.labels(kind)
        child.inc()

    def looked_up(self, cache: str, *, is_hit: bool) -> None:
        self._lookups.labels(cache, "hit" if is_hit else "miss").inc()

    def watch(self, shop: Shop) -> None:
        """From now on the shop tells what it does, under a name that no other has here."""
        name = shop.folder.resolve().name
        alike = sum(watched.name.rpartition("#")[0] == name or watched.name == name for watched in self._watched)
        self._watched.append(Watched(self._instruments, shop, f"{name}#{alike + 1}" if alike else name))

    def unwatch(self) -> None:
        with self._looking:
            for watched in self._watched:
                watched.end()
            self._watched.clear()

    def bring_up_to_date(self) -> None:
        """May be called by a scrape while the clock calls it too."""
        with self._looking:
            for watched in self._watched:
                watched.look()
            if self._shared is not None:
                self._shared.stand()

    def exposition(self, shop: Shop) -> bytes:
        """Prometheus' text format. The first shop is that of whoever runs the process, and shows all shops; another
        shows itself alone."""
        self.bring_up_to_date()
        hidden = self._watched if all(watched.shop is not shop for watched in self._watched[:1]) else []
        others = frozenset(watched.name for watched in hidden if watched.shop is not shop)
        everything = self.registry if self._shared is None else self._shared.together()
        return generate_latest(_Without(others, everything) if others else everything)


class Measured:
    """Outermost: times every request and names it by its route."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        state = scope.setdefault("state", {})

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, answer)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            self.metrics.request(route_of(scope), method, status, time.perf_counter() - started)
            if "error" in state:
                self.metrics.error(state["error"])


def route_of(scope: Scope) -> str:
    """The template of the route that a request went to, such as `/v1/users/{user_id}`; never the path itself."""
    path: str = getattr(scope.get("route"), "path_format", UNMATCHED)
    return path


@router.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request, shop: ShopDep) -> Response:
    """What was answered, recorded and refused, how long it took, and how the process stands, as Prometheus reads it."""
    no_parameters(request)
    kept: Metrics = request.app.state.metrics
    text = await run_in_threadpool(kept.exposition, shop)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_1_0_0})


@asynccontextmanager
async def watching(shops: Sequence[Shop], metrics: Metrics) -> AsyncIterator[None]:
    """The shops tell the metrics what they do, and gauges are kept up to date, for as long as it lasts."""
    for shop in shops:
        metrics.watch(shop)
    task = asyncio.create_task(_refreshing(metrics))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        metrics.unwatch()


async def _refreshing(metrics: Metrics) -> None:
    while True:
        await run_in_threadpool(metrics.bring_up_to_date)
        await asyncio.sleep(REFRESH_S)


class _Without(Collector):
    """A registry without the series of some shops."""

    def __init__(self, shops: frozenset[str], registry: CollectorRegistry) -> None:
        self._shops, self._registry = shops, registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if sample.labels.get("shop") not in self._shops]
            yield family


class _Workers:
    """What a process says of itself beside others, as collectors of the process cannot be added up from files."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._folder = Path(os.environ[SHARED])
        self._process = ProcessCollector(registry=None)
        self._gauges = {
            name: Gauge(name, meaning, registry=registry, multiprocess_mode="liveall")
            for name, meaning in (
                ("process_resident_memory_bytes", "Resident memory of each worker."),
                ("process_open_fds", "Open files of each worker."),
                ("process_max_fds", "Files that each worker may open."),
                ("process_start_time_seconds", "Start of each worker since the epoch."),
            )
        }
        self._cpu = Counter("process_cpu_seconds", "Processor time of all workers.", registry=registry)
        self._cpu_s = 0.0

    def stand(self) -> None:
        for metric in self._process.collect():
            for sample in metric.samples:
                if sample.name in self._gauges:
                    self._gauges[sample.name].set(sample.value)
                elif sample.name == "process_cpu_seconds_total":
                    self._cpu.inc(max(0.0, sample.value - self._cpu_s))
                    self._cpu_s = sample.value

    def together(self) -> CollectorRegistry:
        """Of all workers; gauges of those that are gone are left out."""
        for file in self._folder.glob("gauge_live*_*.db"):
            pid = file.stem.rpartition("_")[2]
            if not Path("/proc", pid).exists():
                mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        return registry
