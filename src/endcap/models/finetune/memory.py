"""Whether memory suffices, found out by trying: how much a batch takes depends on the model and on what is in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# As torch says it of a CPU and of a GPU.
SAID = ("not enough memory", "can't allocate memory", "out of memory", "bad_alloc")


def within_memory(run: Callable[[], T]) -> T | None:
    """What `run` gives; None where memory did not suffice. The error, and all that its frames hold, is gone then."""
    try:
        return run()
    except (MemoryError, RuntimeError) as error:
        if not of_memory(error):
            raise
    return None


def of_memory(error: Exception) -> bool:
    """torch's own error of a GPU is a RuntimeError; that of a CPU can only be told by what it says."""
    return isinstance(error, MemoryError) or any(said in str(error).lower() for said in SAID)
