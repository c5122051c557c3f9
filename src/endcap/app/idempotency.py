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
    """What the work gives, and whether it was given before under the key. request: its `fingerprint`.

    CallerError where the key came with another request. Where the memory is away the work is done again, which the log
    says: an answer that may differ beats none.
    """
    name = f"answer:{fingerprint(key.encode()).hex()}"
    kept = _asked(lambda: memory.recall(name))
    if kept is not None:
        return _of(request, kept), True
    content = request + work()
    kept = _asked(lambda: memory.remember(name, content, KEPT_S)) or content
    return _of(request, kept), kept != content


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
