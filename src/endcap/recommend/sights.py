"""What pictures are compared with in search, and how: each photo by itself, since those of one item may show it from
all sides.

Legend: n items, p photos, w photos of items without words, i the eye's width, t that of the words' space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endcap.core.protocols import Encoder, VectorIndex
from endcap.core.types import Float32Array, Int32Array

DEPICTED = 5000  # photos of items without words that a text is answered with, before any filter
SAME = 0.995  # cosine in the eye's own space from which a picture is the very one that was sent


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """vectors: of the items' words, and of a last dimension that a picture has 1 in. wordless: bool [n], items that
    have none. alone: int32 [w], their photos. drawn: float32 [w], how near each of these is to words in general."""

    vectors: VectorIndex
    wordless: NDArray[np.bool_]
    alone: Int32Array
    drawn: Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class Sights:
    """eye: reads a picture. items: int32 [p], whose each photo is. own: float16 [p, i], photos as the eye sees them.
    photos: the same in the space of the words, where there are words. laid: float32 [m, i] of the eye -> [m, t], into
    that space. unseen: bool [n], items without photos."""

    eye: Encoder[bytes]
    items: Int32Array
    own: NDArray[np.float16]
    photos: VectorIndex
    laid: Callable[[Float32Array], Float32Array]
    unseen: NDArray[np.bool_]
    described: Described | None = None

    def depicted(self, vector: Float32Array) -> Int32Array:
        """Items without words, by what is on their photos, for a text's vector: those that fit it, best first, of
        DEPICTED photos at most. What is near to every text comes after what is near to this one."""
        if self.described is None:
            return np.empty(0, np.int32)
        cosines = self.photos.at(vector, self.described.alone)
        fit = np.flatnonzero(cosines > 0)
        far = self.described.drawn[fit] - cosines[fit]
        if len(fit) > DEPICTED:
            nearest = np.sort(np.argpartition(far, DEPICTED - 1)[:DEPICTED])
            fit, far = fit[nearest], far[nearest]
        return once(self.items[self.described.alone[fit[np.argsort(far, kind="stable")]]])

    def same(self, seen: Float32Array, items: Int32Array) -> Int32Array:
        """Those items that have a photo which is the one that was seen. seen: float32 [i], by the eye."""
        rows = np.flatnonzero(np.isin(self.items, items))
        found: Int32Array = self.items[rows[self.own[rows].astype(np.float32) @ seen >= SAME]]
        return found


def once(items: Int32Array) -> Int32Array:
    """Each where it comes first."""
    _, first = np.unique(items, return_index=True)
    return items[np.sort(first)]
