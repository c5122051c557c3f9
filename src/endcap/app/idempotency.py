"""The same answer for the same key: a request that is sent again, because its answer was lost on the way, gets what the
first one got, on whichever worker that shares the memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b

from endcap.app.memory import Memory
from endcap.core.errors import CallerError, ServiceError

LOG = logging.getLogger(__name__)
KEPT_S = 600.0
FINGERPRINT = 16


def fingerprint(*parts: bytes) -> bytes:
    """16 bytes that tell one request from another."""
    digest = blake2b(digest_size=FINGERPRINT)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def once(memory: Memory, key: str, request: bytes, work: Callable[[], bytes]) -> tuple[bytes, bool]:
    """What the work gives, and whether it was given before under the key: `recalled`, or else `remembered`."""
    kept = recalled(memory, key, request)
    return (kept, True) if kept is not None else remembered(memory, key, request, work())


def recalled(memory: Memory, key: str, request: bytes) -> bytes | None:
    """What was answered under the key; None where nothing was. request: its `fingerprint`.

    CallerError where the key came with another request. Where the memory is away there is nothing, which the log says:
    an answer that may differ beats none.
    """
    kept = _asked(lambda: memory.recall(_name(key)))
    return None if kept is None else _of(request, kept)


def remembered(memory: Memory, key: str, request: bytes, answer: bytes) -> tuple[bytes, bool]:
    """The answer, or the one that was there first, and whether it was. Raises as `recalled` does."""
    content = request + answer
    kept = _asked(lambda: memory.remember(_name(key), content, KEPT_S)) or content
    return _of(request, kept), kept != content


def _name(key: str) -> str:
    return f"answer:{fingerprint(key.encode()).hex()}"


def _asked(ask: Callable[[], bytes | None]) -> bytes | None:
    try:
        return ask()
    except ServiceError as error:
        LOG.warning("Idempotency keys are not kept now: %s", error)
        return None


def _of(request: bytes, kept: bytes) -> bytes:
    if kept[:FINGERPRINT] != request:
        raise CallerError(
            "The key was sent with another request.", where="Idempotency-Key", next_step="Make a fresh key for each."
        )
    return kept[FINGERPRINT:]
