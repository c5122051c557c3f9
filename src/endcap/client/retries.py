"""When to send again, how long to wait, and which error it is in the end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from endcap.client.calls import problem_of
from endcap.core.errors import CallerError, EndcapError, NotFoundError, ServiceError, TooManyError

BUSY = frozenset({429, 502, 503, 504})
WRONG = 400
FAILED = 500


@dataclass(frozen=True, slots=True)
class Retries:
    """How often to send again where nothing was done or nobody answered: 429, 502, 503, 504, and no connection.

    The n-th wait is drawn from 0 to `base_s` · 2ⁿ seconds, at most `longest_s`, so that clients that were refused
    together do not come back together. A server's `Retry-After` is the least; one above `longest_s` ends the trying.
    """

    times: int = 3
    base_s: float = 0.2
    longest_s: float = 10.0
    draw: random.Random = field(default_factory=random.Random)

    def wait_s(self, attempt: int, least_s: float = 0.0) -> float | None:
        """Seconds until attempt + 1; None where there is none. attempt: from 0."""
        if attempt >= self.times or least_s > self.longest_s:
            return None
        return least_s + self.draw.uniform(0, min(self.longest_s, self.base_s * 2**attempt))


def retry_after_s(header: str | None) -> float:
    """Seconds of a `Retry-After`; 0 where there is none or it is a date."""
    return float(header) if header is not None and header.isdecimal() else 0.0


def error_of(status: int, body: bytes, retry_after: str | None, asked: str) -> EndcapError:
    """What to raise for an answer that is no success, with the server's sentence where there is one."""
    problem = problem_of(body)
    what = problem.what if problem else f"The server answered {status}."
    where = (problem.where if problem else "") or asked
    step = problem.next_step if problem else "Look into the server's log, or that of what stands before it."
    if status == TooManyError.http_status:
        least = max(1, int(retry_after_s(retry_after)))
        return TooManyError(what, where=where, next_step=step, retry_after_s=least)
    if status == NotFoundError.http_status:
        return NotFoundError(what, where=where, next_step=step)
    if WRONG <= status < FAILED:
        return CallerError(what, where=where, next_step=step)
    return ServiceError(what, where=where, next_step=step)


def unreachable(error: Exception, url: str) -> ServiceError:
    return ServiceError(
        f"The server cannot be reached: {error or type(error).__name__}.",
        where=url,
        next_step="Is it running there? Start it: endcap serve",
    )
