"""Events gathered by a code, and rows found by a key.

Legend: g groups, e events, n wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Int32Array, Int64Array

Code = TypeVar("Code", np.int32, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Groups(Generic[Code]):
    """Events gathered by a code. codes: distinct, ascending; n: baskets with it; first_ms, last_ms: when. All [g]."""

    codes: NDArray[Code]
    n: Int32Array
    first_ms: Int64Array
    last_ms: Int64Array


def gather(codes: NDArray[Code], ts_ms: Int64Array, baskets: NDArray[np.uint64]) -> Groups[Code]:
    """Group events [e] (oldest first) by code. A basket counts once for each run of it within a code's events."""
    if not len(codes):
        return Groups(codes, np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))
    order = codes.argsort(kind="stable")
    codes, baskets = codes[order], baskets[order]
    new_code, new_basket = np.empty((2, len(codes)), np.bool_)
    new_code[0] = new_basket[0] = True
    np.not_equal(codes[1:], codes[:-1], out=new_code[1:])
    np.not_equal(baskets[1:], baskets[:-1], out=new_basket[1:])
    new_basket |= new_code
    starts = new_code.nonzero()[0]
    ends = np.empty_like(starts)
    ends[:-1], ends[-1] = starts[1:] - 1, len(codes) - 1
    runs = new_basket.cumsum(dtype=np.int32)
    return Groups(codes[starts], runs[ends] - runs[starts] + 1, ts_ms[order[starts]], ts_ms[order[ends]])


def find(codes: NDArray[Code], wanted: NDArray[Code]) -> NDArray[np.int64]:
    """int64, the shape of `wanted`: the row of each wanted code among distinct, ascending ones; their number where it
    is absent, which is the row for "none" in a table with one row more."""
    if not len(codes):
        return np.zeros(wanted.shape, np.int64)
    rows = codes.searchsorted(wanted)
    rows[codes.take(rows, mode="clip") != wanted] = len(codes)
    return rows
