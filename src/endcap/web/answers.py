"""How hot routes run and what they send: work off the event loop in few threads, answers as bytes.

An answer is mostly numpy on one core. A few threads keep that core busy while one of them waits for the disk; dozens,
as a web framework's pool has, would only take turns at Python's lock and make the slowest answers slower.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import perf_counter

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from endcap.app.idempotency import fingerprint, once
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.core.types import Slate

AT_ONCE = 2
JSON = "application/json"
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,256}")
_ENCODER = msgspec.json.Encoder()


def answer_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="endcap-answer")


async def in_turn(request: Request, shop: Shop, work: Callable[[], bytes], body: bytes = b"") -> Response:
    """What the work gives, as a JSON answer; with an `Idempotency-Key`, what it gave when the key first came. body: of
    the request, as far as it says what is asked."""
    key, loop = request.headers.get("idempotency-key"), asyncio.get_running_loop()
    known = copy_context()  # of the request, such as its id in what is logged
    if key is None:
        return Response(await loop.run_in_executor(request.app.state.answers, known.run, work), media_type=JSON)
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise CallerError(
            "The key is empty, longer than 256 characters, or not plain ASCII.",
            where="Idempotency-Key",
            next_step="Send a random text, such as a UUID.",
        )
    scope = request.scope
    asked = fingerprint(scope["method"].encode(), scope["path"].encode(), scope["query_string"], body)
    content, is_again = await loop.run_in_executor(
        request.app.state.answers, known.run, lambda: once(shop.memory, key, asked, work)
    )
    return Response(content, media_type=JSON, headers={"Idempotent-Replayed": "true"} if is_again else None)


def encoded(slate: Slate, **more: object) -> bytes:
    """JSON of a slate. more: further fields. The time that this takes is the slate's stage `encode`."""
    began = perf_counter()
    content = _ENCODER.encode(
        {
            "recommendation_id": slate.recommendation_id,
            "release": slate.release,
            "placement": slate.placement,
            "items": slate.items,
            "degraded": slate.degraded,
            **more,
        }
    )
    slate.stages["encode"] = perf_counter() - began
    return content
