"""A batch that is too big for memory is read in halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from endcap.core.types import Float32Array

Row = TypeVar("Row")
# How torch and onnxruntime say it, where their error has no class of its own.
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "failed to allocate memory")


def halving(
    run: Callable[[Sequence[Row]], Float32Array], rows: Sequence[Row], noted: Callable[[int], None]
) -> Float32Array:
    """What `run` gives for the rows, float32 [len(rows), d], in as many pieces as memory asks for.

    noted: called with the new number of rows whenever a batch is cut. Raises what `run` raises where a single row is
    too big, or where the trouble is another.
    """
    try:
        return run(rows)
    except Exception as error:
        if len(rows) < 2 or not is_out_of_memory(error):
            raise
    half = (len(rows) + 1) // 2
    noted(half)
    return np.concatenate([halving(run, rows[:half], noted), halving(run, rows[half:], noted)])


def is_out_of_memory(error: Exception) -> bool:
    said = str(error).lower()
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(sentence in said for sentence in OUT_OF_MEMORY)
