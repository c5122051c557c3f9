"""What holds for every request before and after its handler: an id, safe headers, no stack trace, a line in the log."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Iterable
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from endcap.app.logs import CURRENT_REQUEST
from endcap.core.faults import origin
from endcap.web.access_log import log_request, method_of, route_of
from endcap.web.problems import problem_response

LOG = logging.getLogger(__name__)
RawHeader = tuple[bytes, bytes]
REQUEST_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
# What the OWASP cheat sheet on REST advises for answers that are not pages. Strict-Transport-Security is for the proxy
# that speaks TLS to say; Server is not sent at all.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "accelerometer=(), camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Permitted-Cross-Domain-Policies": "none",
}
_RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
REQUEST_ID_HEADER = b"x-request-id"
UNANSWERED = 499  # in the log, where the caller was gone before an answer began


class CutShortError(Exception):
    """An answer that had begun could not be finished; the connection has to be closed."""


class Guard:
    """Gives each request an id, sets headers, writes the log's line, and turns what nobody expected into a 500 that
    names the id under which the log has the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        CURRENT_REQUEST.set(request_id)
        status, begun_s = UNANSWERED, time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_ours(message.get("headers", ()), request_id)
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except asyncio.CancelledError:
            # The server is told to stop and has waited long enough. It cancels this task and nothing waits for it, so
            # that to end here is to end it; raised further the server would print it as a fault.
            if status == UNANSWERED:
                stopping = problem_response(503, "The server is stopping.", next_step="Send it again.")
                await stopping(scope, receive, answer)
        except Exception as error:
            scope["state"]["error"] = type(error).__name__
            LOG.error("Request %s failed: %s %s: %s", request_id, method_of(scope), route_of(scope), origin(error))
            if status != UNANSWERED:
                raise CutShortError(f"Request {request_id} failed after its answer had begun.") from None
            failed = problem_response(
                500, "Something unexpected went wrong.", f"request {request_id}", "The server's log has the details."
            )
            await failed(scope, receive, answer)
        finally:
            log_request(scope, status, time.perf_counter() - begun_s)


class LoopbackOnly:
    """Refuses requests whose Host is not this machine, as a web page that has its own name resolve to 127.0.0.1 would
    send them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "localhost") if scope["type"] == "http" else "localhost"
        if is_loopback(_hostname(host)):
            await self.app(scope, receive, send)
            return
        refused = problem_response(
            403, f"The host {host!r} is not this machine.", "Host", "Ask for localhost or 127.0.0.1.", HEADERS
        )
        await refused(scope, receive, send)


def _with_ours(given: Iterable[RawHeader], request_id: str) -> list[RawHeader]:
    """An answer's headers with the request's id and what of `HEADERS` it does not set itself."""
    headers = [header for header in given if header[0] != REQUEST_ID_HEADER]
    named = {name for name, _ in headers}
    headers.append((REQUEST_ID_HEADER, request_id.encode()))
    headers += [header for header in _RAW if header[0] not in named]
    return headers


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and nothing else."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    """'127.0.0.1:8765' -> '127.0.0.1', '[::1]:8765' -> '::1'."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _request_id(scope: Scope) -> str:
    """The caller's, where it is safe to repeat and to log; otherwise a fresh one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
