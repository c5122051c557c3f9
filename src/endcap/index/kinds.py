"""Neighbours among items many of which are alike: equal vectors are held and searched once, and stand for their items.

Legend: n items, m kinds of them, d dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from endcap.core.errors import ArtifactError
from endcap.core.protocols import VectorIndex
from endcap.core.runs import places_of
from endcap.core.types import Float32Array, Int32Array
from endcap.index.exact import ExactIndex

KIND_OF = "kind_of.npy"


class KindIndex:
    """index: of the kinds, [m, d]. kind_of: int32 [n], each item's row of them."""

    def __init__(self, index: VectorIndex, kind_of: Int32Array, dim: int) -> None:
        self.dim, self._index, self._kind_of = dim, index, kind_of
        self._members = kind_of.argsort(kind="stable").astype(np.int32)
        self._starts = kind_of[self._members].searchsorted(np.arange(int(kind_of.max(initial=-1)) + 2))

    def __len__(self) -> int:
        return len(self._kind_of)

    def search(self, vector: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """The k items with the greatest inner product, best first; those of one kind in order."""
        kinds, scores = self._index.search(vector, k)
        sizes = self._starts[kinds + 1] - self._starts[kinds]
        items, marks = self._members[places_of(self._starts[kinds], sizes)], scores.repeat(sizes)
        order = np.lexsort((items, -marks))[: max(k, 0)]
        return items[order], marks[order]

    def search_many(self, vectors: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """`search` for float32 [q, d]: positions int32 [q, min(k, n)], scores float32 [q, min(k, n)]."""
        found = [self.search(vector, k) for vector in vectors]
        width = max(0, min(k, len(self)))
        items = np.array([items for items, _ in found], np.int32).reshape(len(vectors), width)
        return items, np.array([scores for _, scores in found], np.float32).reshape(len(vectors), width)

    def at(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        """float32 [len(items)]: inner products with the given items."""
        return self._index.at(vector, self._kind_of[items])


def save_kinds(kinds: ExactIndex, kind_of: Int32Array, folder: Path) -> None:
    """Into an existing folder."""
    kinds.save(folder)
    np.save(folder / KIND_OF, kind_of)


def load_kinds(folder: Path, opened: Callable[[ExactIndex], VectorIndex]) -> KindIndex:
    """opened: the index that searches the kinds. ArtifactError where items are of kinds that are not there."""
    exact = ExactIndex.load(folder)
    try:
        kind_of = np.load(folder / KIND_OF, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"The kinds of items cannot be read: {error}.", where=str(folder), next_step="Train again."
        ) from error
    if len(kind_of) and not 0 <= int(kind_of.min()) <= int(kind_of.max()) < len(exact):
        raise ArtifactError("Items are of kinds that are not there.", where=str(folder), next_step="Train again.")
    return KindIndex(opened(exact), kind_of, exact.dim)
