"""Rows through a model in batches, which are halved where memory does not suffice. Needs no torch.

How much a batch takes depends on the model, on what is in it and on what else runs, so it is found out by trying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from endcap.core.errors import ServiceError

Row = TypeVar("Row")
Found = TypeVar("Found")

# As torch says it of a CPU and of a GPU, and CTranslate2 of a GPU.
SAID = ("not enough memory", "can't allocate memory", "out of memory", "bad_alloc")


def halving(
    run: Callable[[Sequence[Row]], Found], rows: Sequence[Row], size: int, notes: list[str] | None = None
) -> Iterator[tuple[Sequence[Row], Found]]:
    """Each batch of at most `size` rows with what `run` gave for it, in order.

    A batch that memory does not suffice for is run again in halves, and no larger one is tried after it; `notes` is
    told. Raises ServiceError if a single row is too much. Whatever else `run` raises is left alone.
    """
    start = 0
    while start < len(rows):
        batch = rows[start : start + size]
        found = _tried(run, batch)
        if found:
            yield batch, found[0]
            start += len(batch)
            continue
        if len(batch) == 1:
            raise ServiceError(
                "Memory does not suffice for a single content.",
                where="encoder",
                next_step="Free memory, choose a smaller model, or let each content be shorter.",
            )
        size = (len(batch) + 1) // 2
        if notes is not None:
            notes.append(f"Memory did not suffice for {len(batch)} contents at once, so {size} are taken.")


def _tried(run: Callable[[Sequence[Row]], Found], batch: Sequence[Row]) -> tuple[Found] | None:
    """None where memory did not suffice. The error, and all that its frames hold, is gone on return."""
    try:
        return (run(batch),)
    except (MemoryError, RuntimeError) as error:
        if not _of_memory(error):
            raise
        return None


def _of_memory(error: Exception) -> bool:
    """torch's own error of a GPU is a RuntimeError of this name; that of a CPU can only be told by what it says."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(said in str(error).lower() for said in SAID)
