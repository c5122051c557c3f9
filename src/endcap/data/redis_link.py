"""The way to a Redis that may be away: short timeouts, and no asking while it is known to be down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from endcap.core.breaker import Breaker
from endcap.core.errors import CallerError, MissingExtraError, ServiceError

if TYPE_CHECKING:
    from redis import Redis

T = TypeVar("T")


class RedisAwayError(ServiceError):
    """Redis did not answer in time; what is kept there cannot be had now."""


class RedisLink:
    """A pool of connections, shared by threads; connects when it is first used.

    url: `redis://`, `rediss://` or `unix://`. timeout_s: of connecting and of one answer. CallerError for another
    kind of URL, MissingExtraError without the extra `redis`.
    """

    def __init__(self, url: str, timeout_s: float = 0.25, retry_s: float = 1.0) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingExtraError("redis", "redis") from error
        self._errors = (redis.RedisError, OSError)
        self.breaker = Breaker(retry_s)
        # Connections that a restart of Redis has closed are found when they are used: one more try takes a new one.
        retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        try:
            self.client: Redis = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry, protocol=2
            )
        except ValueError as error:
            raise CallerError(
                "The URL is none of a Redis.", where="[state] url", next_step="Write redis://HOST:6379/0."
            ) from error
        told = self.client.connection_pool.connection_kwargs  # never the URL itself: it may hold a password
        self.where = f"Redis at {told.get('host') or told.get('path')}"

    def ask(self, question: Callable[[Redis], T]) -> T:
        """What the question answers. RedisAwayError where Redis does not, at once while it is known to be away."""
        if not self.breaker.allows():
            raise self._away("It did not answer a moment ago")
        try:
            answer = question(self.client)
        except self._errors as error:
            self.breaker.failed()
            raise self._away(type(error).__name__) from error
        self.breaker.worked()
        return answer

    def close(self) -> None:
        self.client.close()

    def _away(self, why: str) -> RedisAwayError:
        return RedisAwayError(
            f"Redis is away: {why}.", where=self.where, next_step="See that it runs and can be reached."
        )
