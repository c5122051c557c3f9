"""Whether memory suffices, found out by trying."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from endcap.encoders.batches import of_memory

T = TypeVar("T")


def within_memory(run: Callable[[], T]) -> T | None:
    """What `run` gives; None where memory did not suffice. The error, and all that its frames hold, is gone then."""
    try:
        return run()
    except (MemoryError, RuntimeError) as error:
        if not of_memory(error):
            raise
    return None
