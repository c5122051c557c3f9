"""Rows through a model in batches, which are halved where memory does not suffice. Needs no torch.

How much a batch takes depends on the model, on what is in it and on what else runs, so it is found out by trying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from endcap.core.errors import ServiceError
from endcap.core.types import Float32Array

Row = TypeVar("Row")
Found = TypeVar("Found")

# As torch says it of a CPU and of a GPU, onnxruntime of a CPU, and CTranslate2 of a GPU.
SAID = (
    *("not enough memory", "can't allocate memory", "cannot allocate memory", "failed to allocate memory"),
    *("out of memory", "bad_alloc"),
)


def in_batches(
    run: Callable[[Sequence[Row]], Found], rows: Sequence[Row], size: int, noted: Callable[[str], None] | None = None
) -> Iterator[tuple[Sequence[Row], Found]]:
    """Each batch of at most `size` rows with what `run` gave for it, in order.

    A batch that memory does not suffice for is run again in halves, and no larger one is tried after it; `noted` is
    told in a sentence. Raises ServiceError if a single row is too much. Whatever else `run` raises is left alone.
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
        if noted is not None:
            noted(f"Memory did not suffice for {len(batch)} contents at once, so {size} are taken.")


def halving(
    run: Callable[[Sequence[Row]], Float32Array], rows: Sequence[Row], noted: Callable[[str], None] | None
) -> Float32Array:
    """What `run` gives for the rows of one batch, float32 [len(rows), d], in as many pieces as memory asks for."""
    return np.concatenate([found for _, found in in_batches(run, rows, max(1, len(rows)), noted)])


def _tried(run: Callable[[Sequence[Row]], Found], batch: Sequence[Row]) -> tuple[Found] | None:
    """None where memory did not suffice. The error, and all that its frames hold, is gone on return."""
    try:
        return (run(batch),)
    except Exception as error:  # onnxruntime's are of classes of its own
        if not of_memory(error):
            raise
        return None


def of_memory(error: Exception) -> bool:
    """torch's own error of a GPU is a RuntimeError of this name; that of a CPU can only be told by what it says."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(said in str(error).lower() for said in SAID)
