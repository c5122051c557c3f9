"""How hot routes run and what they send: work off the event loop in few threads, answers as bytes.

An answer is mostly numpy on one core. A few threads keep that core busy while one of them waits for the disk; dozens,
as a web framework's pool has, would only take turns at Python's lock and make the slowest answers slower. Where nobody
else waits and all that an answer needs is in memory it takes no thread at all: to change threads costs a tenth of it.
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
from typing import TypeVar
from weakref import WeakKeyDictionary

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from endcap.app.idempotency import fingerprint, once, recalled, remembered
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.core.types import Query, Slate

AT_ONCE = 2
TOGETHER = 8  # queries that are answered in one go, at most
REJOINING = 0.1  # share of a turn's time that those it answered may take to ask again, to be answered together again
QUICK_S = 0.01  # what an answer usually takes at most, where it may be made on the event loop
FORGETTING = 0.1  # share of a quicker answer in what one is taken to need; a slower one counts whole
SLOW_S = 0.05  # a turn that takes longer may wait for a disk or a server: the next need not wait for it
JSON = "application/json"
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,256}")
Work = TypeVar("Work")
_ENCODER = msgspec.json.Encoder()


def answer_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="endcap-answer")


@dataclass(slots=True)
class _Waiting:
    shop: Shop
    query: Query
    told: asyncio.Future[bytes]
    known: Context

    def goes_with(self, other: _Waiting) -> bool:
        """Of the same shop, and neither with a budget of its own, which would be that of all."""
        return self.shop is other.shop and self.query.budget_ms is None and other.query.budget_ms is None


class Queries:
    """Queries that come while others are being answered are answered together, for less than one after the other.

    One turn at a time, as turns share a core; a second beside one that is slow. After a turn of several the next begins
    when as many wait as may be expected, or a moment later: those who were just answered often ask again at once, and
    without that moment two halves would take turns, each half as large. For one event loop.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._waiting: deque[_Waiting] = deque()
        self._turns, self._began_s = 0, 0.0
        self._expected = 0
        self._hold: asyncio.TimerHandle | None = None
        self._needed_s: WeakKeyDictionary[Shop, float] = WeakKeyDictionary()  # by answers of late, made alone

    async def answer(self, shop: Shop, query: Query) -> bytes:
        """The slate as JSON. Raises what `Shop.answer` does."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(shop, query, loop.create_future(), copy_context())
        self._waiting.append(waiting)
        loop.call_soon(self._take_turns, loop)  # so that those which were read at the same moment are there too
        return await waiting.told

    def _take_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._hold is not None:
            if len(self._waiting) < self._expected:
                return
            self._end_hold()
        now_s = loop.time()
        if len(self._waiting) == 1 and self._turns == 0 and self._answers_here(self._waiting[0]):
            self._waiting.popleft()
        while self._waiting and (self._turns == 0 or (self._turns < AT_ONCE and now_s - self._began_s > SLOW_S)):
            turn = [self._waiting.popleft()]
            while self._waiting and len(turn) < TOGETHER and self._waiting[0].goes_with(turn[0]):
                turn.append(self._waiting.popleft())
            run = turn[0].known.run if len(turn) == 1 else Context().run  # what is logged of several is of none
            try:
                done = loop.run_in_executor(self._threads, run, _answered, turn)
            except RuntimeError as error:  # no thread can be started, or the server is stopping
                for waiting in turn:
                    _tell(waiting, error)
                continue
            self._turns, self._began_s = self._turns + 1, now_s
            done.add_done_callback(partial(self._done, loop, turn, now_s))
            loop.call_later(SLOW_S * 1.1, self._take_turns, loop)

    def _answers_here(self, waiting: _Waiting) -> bool:
        """Answer on the event loop, where that is sure to be quick; False where it may not be."""
        shop, began_s = waiting.shop, perf_counter()
        found: bytes | Exception
        try:
            if self._needed_s.get(shop, SLOW_S) > QUICK_S or not shop.is_at_hand():
                return False
            found = waiting.known.run(_answered, [waiting])[0]
        except Exception as error:  # for whoever asked
            found = error
        self._learn(shop, found, perf_counter() - began_s)
        _tell(waiting, found)
        return True

    def _learn(self, shop: Shop, found: bytes | BaseException, seconds: float) -> None:
        if isinstance(found, bytes):  # what is refused says nothing of what an answer takes
            before = self._needed_s.get(shop, SLOW_S)
            self._needed_s[shop] = max(seconds, before + FORGETTING * (seconds - before))

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        turn: list[_Waiting],
        began_s: float,
        done: asyncio.Future[list[bytes | Exception]],
    ) -> None:
        self._turns -= 1
        error = done.exception()
        found = [error] * len(turn) if error else done.result()
        if len(turn) == 1:
            self._learn(turn[0].shop, found[0], loop.time() - began_s)
        for waiting, one in zip(turn, found, strict=True):
            _tell(waiting, one)
        if len(turn) > 1:
            self._end_hold()
            self._expected = min(TOGETHER, len(self._waiting) + len(turn))
            self._hold = loop.call_later(REJOINING * min(loop.time() - began_s, SLOW_S), self._go_on, loop)
        self._take_turns(loop)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """What came is taken as it is. The timer alone says when: a loop may keep its clock in whole milliseconds."""
        self._hold = None
        self._take_turns(loop)

    def _end_hold(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None


def _tell(waiting: _Waiting, found: bytes | BaseException) -> None:
    if waiting.told.done():  # whoever asked is gone
        return
    if isinstance(found, bytes):
        waiting.told.set_result(found)
    else:
        waiting.told.set_exception(found)


def _answered(turn: list[_Waiting]) -> list[bytes | Exception]:
    slates = turn[0].shop.answer_many([waiting.query for waiting in turn])
    return [slate if isinstance(slate, Exception) else encoded(slate) for slate in slates]


async def slate_of(request: Request, shop: Shop, query: Query, body: bytes = b"") -> Response:
    """The slate for a query, as a JSON answer; with an `Idempotency-Key`, what was answered when the key first came.
    body: of the request, as far as it says what is asked."""
    queries: Queries = request.app.state.queries
    key = _key_of(request)
    if key is None:
        return Response(await queries.answer(shop, query), media_type=JSON)
    asked = _asked(request, body)
    kept = await _in_thread(request, lambda: recalled(shop.memory, key, asked))
    if kept is not None:
        return _keyed(request, kept, True)
    answer = await queries.answer(shop, query)
    return _keyed(request, *await _in_thread(request, lambda: remembered(shop.memory, key, asked, answer)))


async def in_turn(request: Request, shop: Shop, work: Callable[[], bytes]) -> Response:
    """What the work gives, as a JSON answer; keys as for `slate_of`."""
    key = _key_of(request)
    if key is None:
        return Response(await _in_thread(request, work), media_type=JSON)
    asked = _asked(request, b"")
    content, is_again = await _in_thread(request, lambda: once(shop.memory, key, asked, work))
    return _keyed(request, content, is_again)


async def _in_thread(request: Request, work: Callable[[], Work]) -> Work:
    """With what is known of the request, such as its id in what is logged."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(request.app.state.answers, copy_context().run, work)


def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise CallerError(
            "The key is empty, longer than 256 characters, or not plain ASCII without spaces.",
            where="Idempotency-Key",
            next_step="Send a random text, such as a UUID.",
        )
    return key


def _asked(request: Request, body: bytes) -> bytes:
    """The fingerprint of what is asked."""
    scope = request.scope
    return fingerprint(scope["method"].encode(), scope["path"].encode(), scope["query_string"], body)


def _keyed(request: Request, content: bytes, is_again: bool) -> Response:
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
