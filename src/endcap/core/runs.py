"""Rows of arrays that are kept end to end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Int64Array


def places_of(starts: Int64Array, lengths: NDArray[np.integer]) -> Int64Array:
    """int64: the places of several runs, one after the other. starts: int64 [n], where each begins. lengths: [n]."""
    places: Int64Array = (starts - lengths.cumsum() + lengths).repeat(lengths)
    places += np.arange(len(places))
    return places
