"""Sending calls over HTTP: `Client` waits for the answer, `AsyncClient` lets others work meanwhile.

Both have the methods of `calls`; only how they send differs. Connections are kept and used again; close the client, or
use it as a context manager. A client may be shared, `Client` by threads and `AsyncClient` by the tasks of one loop.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

import msgspec

from endcap.client import calls
from endcap.client.calls import Call
from endcap.client.retries import BUSY, Retries, error_of, retry_after_s, unreachable
from endcap.core.errors import CallerError, MissingExtraError, ServiceError

if TYPE_CHECKING:
    from types import TracebackType

    import httpx

T = TypeVar("T")
P = ParamSpec("P")
H = TypeVar("H")
TIMEOUT_S = 10.0


class _Sender(ABC, Generic[H]):
    """What both have: where to send to, and what an answer means."""

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = TIMEOUT_S, retries: Retries | None = None
    ) -> None:
        """url: of the server, such as `http://127.0.0.1:8765`. timeout_s: of one attempt, for connecting and for each
        part of the answer. CallerError for a URL that is none, MissingExtraError without httpx."""
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError("httpx", "client") from error
        if not url.startswith(("http://", "https://")):
            raise CallerError(f"{url!r} is no URL of a server.", where="url", next_step="Give http://host:port.")
        self.url, self.retries = url.rstrip("/"), Retries() if retries is None else retries
        self._unreachable = httpx.TransportError
        headers = {"X-API-Key": api_key} if api_key else {}
        self._http = self._connections(base_url=self.url, headers=headers, timeout=timeout_s)

    @abstractmethod
    def _connections(self, **settings: Any) -> H:
        """httpx's client of the kind."""

    def _request(self, call: Call[T]) -> dict[str, Any]:
        """The arguments of httpx for a call."""
        return {
            "method": call.method,
            "url": call.path,
            "params": dict(call.params),
            "content": call.body,
            "headers": dict(call.headers),
        }

    def _after(self, call: Call[T], attempt: int, answer: httpx.Response) -> float | None:
        """Seconds to wait before sending again; None where the answer stands."""
        if answer.status_code in call.answers_with or answer.status_code not in BUSY:
            return None
        return self.retries.wait_s(attempt, retry_after_s(answer.headers.get("Retry-After")))

    def _after_failure(self, attempt: int, error: Exception) -> float:
        """Seconds to wait after nobody answered. ServiceError where it was tried often enough."""
        wait_s = self.retries.wait_s(attempt)
        if wait_s is None:
            raise unreachable(error, self.url) from error
        return wait_s

    def _read(self, call: Call[T], answer: httpx.Response) -> T:
        asked = f"{call.method} {call.path}"
        if answer.status_code not in call.answers_with:
            raise error_of(answer.status_code, answer.content, answer.headers.get("Retry-After"), asked)
        try:
            return call.read(answer.content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ServiceError(
                f"The answer is not what was expected: {error}.",
                where=f"{self.url} {asked}",
                next_step="Is Endcap listening there, of the client's version?",
            ) from error


def _waiting(make: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(make)
    def method(self: Client, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(make(*args, **kwargs))

    return cast("Callable[Concatenate[Client, P], T]", method)


def _awaited(make: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(make)
    async def method(self: AsyncClient, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(make(*args, **kwargs))

    return cast("Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]", method)


class Client(_Sender["httpx.Client"]):
    """Waits for each answer. May be used by several threads at once."""

    def _connections(self, **settings: Any) -> httpx.Client:
        import httpx

        return httpx.Client(**settings)

    recommend = _waiting(calls.recommend)
    more = _waiting(calls.more)
    similar = _waiting(calls.similar)
    search = _waiting(calls.search)
    record = _waiting(calls.record)
    record_many = _waiting(calls.record_many)
    put_items = _waiting(calls.put_items)
    patch_item = _waiting(calls.patch_item)
    item = _waiting(calls.item)
    delete_item = _waiting(calls.delete_item)
    put_user = _waiting(calls.put_user)
    user = _waiting(calls.user)
    health = _waiting(calls.health)

    def send(self, call: Call[T]) -> T:
        """Send a call, again where that helps. Raises the house's errors with the server's sentence."""
        attempt = 0
        while True:
            try:
                answer = self._http.request(**self._request(call))
                wait_s = self._after(call, attempt, answer)
                if wait_s is None:
                    return self._read(call, answer)
            except self._unreachable as error:
                wait_s = self._after_failure(attempt, error)
            time.sleep(wait_s)
            attempt += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()


class AsyncClient(_Sender["httpx.AsyncClient"]):
    """The same methods, awaited. For one event loop."""

    def _connections(self, **settings: Any) -> httpx.AsyncClient:
        import httpx

        return httpx.AsyncClient(**settings)

    recommend = _awaited(calls.recommend)
    more = _awaited(calls.more)
    similar = _awaited(calls.similar)
    search = _awaited(calls.search)
    record = _awaited(calls.record)
    record_many = _awaited(calls.record_many)
    put_items = _awaited(calls.put_items)
    patch_item = _awaited(calls.patch_item)
    item = _awaited(calls.item)
    delete_item = _awaited(calls.delete_item)
    put_user = _awaited(calls.put_user)
    user = _awaited(calls.user)
    health = _awaited(calls.health)

    async def send(self, call: Call[T]) -> T:
        """Send a call, again where that helps. Raises the house's errors with the server's sentence."""
        attempt = 0
        while True:
            try:
                answer = await self._http.request(**self._request(call))
                wait_s = self._after(call, attempt, answer)
                if wait_s is None:
                    return self._read(call, answer)
            except self._unreachable as error:
                wait_s = self._after_failure(attempt, error)
            await asyncio.sleep(wait_s)
            attempt += 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()
