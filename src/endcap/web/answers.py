"""How hot routes run and what they send: work off the event loop in few threads, answers as bytes.

An answer is mostly numpy on one core. A few threads keep that core busy while one of them waits for the disk; dozens,
as a web framework's pool has, would only take turns at Python's lock and make the slowest answers slower.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from endcap.core.types import Slate

AT_ONCE = 2
JSON = "application/json"
_ENCODER = msgspec.json.Encoder()


def answer_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="endcap-answer")


async def in_turn(request: Request, work: Callable[[], bytes]) -> Response:
    """What the work gives, as a JSON answer."""
    content = await asyncio.get_running_loop().run_in_executor(request.app.state.answers, work)
    return Response(content, media_type=JSON)


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
