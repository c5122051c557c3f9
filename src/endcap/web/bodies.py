"""Bodies are read before anything looks at them: whole, up to a size, within a time, and as they are."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from endcap.app.limits import LimitsConfig
from endcap.web.problems import problem_response

MEDIA_ROUTES = frozenset({("POST", "/v1/search")})
NO_BODY = frozenset({"GET", "HEAD", "OPTIONS"})


class Bodies:
    """Reads the body and hands it on as one message, or answers 413, 415, 408 or 400 in its place. The limits are those
    of the shop that the request reaches; a request that reaches none has no use for a body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shop = scope["state"].get("shop") if scope["type"] == "http" else None
        if shop is None:
            await self.app(scope, receive, send)
            return
        body = await _body(scope, receive, shop.config.limits)
        if isinstance(body, JSONResponse):
            await body(scope, receive, send)
        else:
            await self.app(scope, _replayed(body, receive), send)


async def _body(scope: Scope, receive: Receive, limits: LimitsConfig) -> bytes | JSONResponse:
    """The whole body, or the answer to one that is too large, too slow or packed."""
    headers = Headers(scope=scope)
    declared = headers.get("content-length", "")
    if not declared and scope["method"] in NO_BODY:
        return b""
    if headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
        return _packed()
    is_media = (scope["method"], scope["path"]) in MEDIA_ROUTES
    most = limits.max_media_bytes if is_media else limits.max_body_bytes
    if declared.isdecimal() and int(declared) > most:
        return _too_large(most)
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
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
            f"The body was not complete after {limits.body_timeout_s:g} s.",
            next_step="Send it again.",
            headers={"Connection": "close"},
        )


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


def _packed() -> JSONResponse:
    """A small body may unpack to one that fills the memory."""
    return problem_response(
        415,
        "Compressed bodies are not taken.",
        "Content-Encoding",
        "Send the body as it is, without Content-Encoding.",
        {"Accept-Encoding": "identity", "Connection": "close"},
    )
