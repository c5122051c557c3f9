"""What holds for every request before and after its handler: an id, a limit, safe headers, no stack trace."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from endcap.app.logs import CURRENT_REQUEST
from endcap.web.problems import problem_response

LOG = logging.getLogger(__name__)
MAX_BODY_BYTES = 1024 * 1024
MEDIA_BYTES = 8 * 1024 * 1024  # of a photo, or of some four minutes of sound as a telephone sends them
MEDIA_ROUTES = frozenset({("POST", "/v1/search")})
BODY_TIMEOUT_S = 15.0
REQUEST_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


class Guard:
    """Gives each request an id, reads its body up to a limit, sets headers, and turns what nobody expected into a 500
    that names the id under which the log has the rest."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.app, self.max_body_bytes = app, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        CURRENT_REQUEST.set(request_id)
        has_begun = False

        async def answer(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            body = await self._body(scope, receive)
            if isinstance(body, JSONResponse):
                await body(scope, receive, answer)
            else:
                await self.app(scope, _replayed(body, receive), answer)
        except asyncio.CancelledError:
            # The server is told to stop and has waited long enough. It cancels this task and nothing waits for it, so
            # that to end here is to end it; raised further the server would print it as a fault.
            if not has_begun:
                await problem_response(503, "The server is stopping.", next_step="Send it again.")(
                    scope, receive, answer
                )
        except Exception as error:
            scope["state"]["error"] = type(error).__name__
            LOG.exception("Request %s failed: %s %s", request_id, scope["method"], scope["path"])
            if has_begun:
                raise
            failed = problem_response(
                500, "Something unexpected went wrong.", f"request {request_id}", "The server's log has the details."
            )
            await failed(scope, receive, answer)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | JSONResponse:
        """The whole body, or the answer to one that is too large or too slow."""
        declared = Headers(scope=scope).get("content-length", "")
        most = MEDIA_BYTES if (scope["method"], scope["path"]) in MEDIA_ROUTES else self.max_body_bytes
        if declared.isdecimal() and int(declared) > most:
            return _too_large(most)
        if not declared and scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            return b""
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return problem_response(400, "The connection was closed before the body was complete.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        return _too_large(most)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            return problem_response(
                408,
                f"The body was not complete after {BODY_TIMEOUT_S:g} s.",
                next_step="Send it again.",
                headers={"Connection": "close"},
            )


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
    return host.partition(":")[0]


def _request_id(scope: Scope) -> str:
    """The caller's, where it is safe to repeat and to log; otherwise a fresh one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Hands out the body that was read, then whatever the connection says."""
    is_read = False

    async def replay() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _too_large(most: int) -> JSONResponse:
    return problem_response(
        413,
        f"The body is larger than {most} bytes.",
        "body",
        "Send events in several requests, shorter clips, and smaller pictures.",
        {"Connection": "close"},
    )
