"""How hot routes run and what they send: work off the event loop in few threads, answers as bytes.

An answer is mostly numpy on one core. A few threads keep that core busy while one of them waits for the disk; dozens,
as a web framework's pool has, would only take turns at Python's lock and make the slowest answers slower.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from endcap.app.idempotency import fingerprint, once
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.core.types import Query, Slate

AT_ONCE = 2
TOGETHER = 8  # queries that are answered in one go, at most
SLOW_S = 0.05  # a turn that takes longer may wait for a disk or a server: the next need not wait for it
JSON = "application/json"
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,256}")
_ENCODER = msgspec.json.Encoder()


def answer_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="endcap-answer")


@dataclass(slots=True)
class _Waiting:
    shop: Shop
    query: Query
    told: asyncio.Future[bytes]
    known: Context


class Queries:
    """Queries that come while others are being answered are answered together, for less than one after the other.

    One turn at a time, as turns share a core; a second beside one that is slow. For one event loop.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._waiting: deque[_Waiting] = deque()
        self._turns, self._began_s = 0, 0.0

    async def answer(self, shop: Shop, query: Query) -> bytes:
        """The slate as JSON. Raises what `Shop.answer` does."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(shop, query, loop.create_future(), copy_context())
        self._waiting.append(waiting)
        self._take_turns(loop)
        return await waiting.told

    def _take_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        while self._waiting and (self._turns == 0 or (self._turns < AT_ONCE and now_s - self._began_s > SLOW_S)):
            turn = [self._waiting.popleft()]
            while self._waiting and len(turn) < TOGETHER and self._waiting[0].shop is turn[0].shop:
                turn.append(self._waiting.popleft())
            self._turns, self._began_s = self._turns + 1, now_s
            run = turn[0].known.run if len(turn) == 1 else Context().run  # what is logged of several is of none
            loop.run_in_executor(self._threads, run, _answered, turn).add_done_callback(partial(self._tell, loop, turn))
            loop.call_later(SLOW_S * 1.1, self._take_turns, loop)

    def _tell(
        self, loop: asyncio.AbstractEventLoop, turn: list[_Waiting], done: asyncio.Future[list[bytes | Exception]]
    ) -> None:
        self._turns -= 1
        error = done.exception()
        for place, waiting in enumerate(turn):
            found = error or done.result()[place]
            if waiting.told.done():  # whoever asked is gone
                continue
            if isinstance(found, bytes):
                waiting.told.set_result(found)
            else:
                waiting.told.set_exception(found)
        self._take_turns(loop)


def _answered(turn: list[_Waiting]) -> list[bytes | Exception]:
    slates = turn[0].shop.answer_many([waiting.query for waiting in turn])
    return [slate if isinstance(slate, Exception) else encoded(slate) for slate in slates]


async def slate_of(request: Request, shop: Shop, query: Query, body: bytes = b"") -> Response:
    """The slate for a query, as a JSON answer. body: see `in_turn`."""
    if "idempotency-key" in request.headers:
        return await in_turn(request, shop, lambda: encoded(shop.answer(query)), body)
    queries: Queries = request.app.state.queries
    return Response(await queries.answer(shop, query), media_type=JSON)


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
    request.app.state.metrics.looked_up("idempotency", is_hit=is_again)
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
