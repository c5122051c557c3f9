"""Content similarity: items whose text is like what the shopper turned to lately. The answer for new items.

Legend: i items, m kinds of items, d dimensions of the reduced content vectors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from endcap.core.protocols import VectorIndex
from endcap.core.ranking import length
from endcap.core.runs import places_of
from endcap.core.types import Context, Evidence, Float32Array, Int32Array, Reason
from endcap.models.evidence import SILENCE, Together
from endcap.models.neighbours import recent

IndexFactory = Callable[[Float32Array], VectorIndex]


class ContentSource:
    """Cosine of an item's vector with the recency-weighted mean of the last acts' vectors.

    Items with one vector (a grocer names many products alike) are held and searched as one kind.
    """

    name = "content"

    def __init__(self, kinds: Float32Array, kind_of: Int32Array, index_factory: IndexFactory) -> None:
        """kinds: float32 [m, d], distinct vectors. kind_of: int32 [i], each item's row of them."""
        self.kinds, self.kind_of = kinds, kind_of
        self.index = index_factory(kinds)
        self._members = kind_of.argsort(kind="stable").astype(np.int32)
        self._starts = kind_of[self._members].searchsorted(np.arange(len(kinds) + 1))
        self._share = len(kinds) / max(1, len(kind_of))

    @classmethod
    def of(cls, vectors: Float32Array, index_factory: IndexFactory) -> ContentSource:
        """vectors: float32 [i, d]."""
        kinds, kind_of = np.unique(vectors, axis=0, return_inverse=True)
        return cls(kinds, kind_of.astype(np.int32), index_factory)

    @property
    def searched(self) -> Float32Array:
        """float32 [m, d]: what the index is of."""
        return self.kinds

    @property
    def n_items(self) -> int:
        return len(self.kind_of)

    @property
    def vectors(self) -> Float32Array:
        """float32 [i, d]."""
        return self.kinds[self.kind_of]

    def weigh(self, context: Context) -> Evidence:
        return self.weigh_many([context])[0]

    def weigh_many(self, contexts: Sequence[Context]) -> list[Evidence]:
        tastes = np.zeros((len(contexts), self.kinds.shape[1]), np.float32)
        for row, context in enumerate(contexts):
            items, weights = recent(context)
            taste = weights @ self.kinds[self.kind_of[items]]
            tastes[row] = taste / max(length(taste), 1e-9)
        known = np.flatnonzero(tastes.any(axis=1)).tolist()
        together = Together(self.index, tastes[known])
        found: list[Evidence] = [SILENCE] * len(contexts)
        for place, row in enumerate(known):
            found[row] = _Likeness(self, together, place, tastes[row])
        return found

    def explain(self, context: Context, item: int) -> Reason | None:
        items, weights = recent(context)
        others = items != item
        items, weights = items[others], weights[others]
        if not len(items):
            return None
        likeness = weights * (self.kinds[self.kind_of[items]] @ self.kinds[self.kind_of[item]])
        return Reason(self.name, self.name, because=int(items[np.argmax(likeness)]))

    def kinds_of(self, k: int) -> int:
        """How many kinds are likely to hold k items, with some to spare."""
        return min(k, 1 + math.ceil(2 * k * self._share))

    def members(self, kinds: Int32Array, scores: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """The first k items of kinds, best first, equal ones in order; none whose kind scores 0 or less."""
        kinds, scores = kinds[scores > 0], scores[scores > 0]
        sizes = self._starts[kinds + 1] - self._starts[kinds]
        return self._members[places_of(self._starts[kinds], sizes)][:k], scores.repeat(sizes)[:k]

    def save(self, folder: Path) -> None:
        np.save(folder / "kinds.npy", self.kinds)
        np.save(folder / "kind_of.npy", self.kind_of)
        (folder / "source.json").write_text(json.dumps({"dim": int(self.kinds.shape[1])}))

    @classmethod
    def load(cls, folder: Path, index_factory: IndexFactory) -> ContentSource:
        """Memory-mapped."""
        kinds, kind_of = (
            np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in ("kinds", "kind_of")
        )
        return cls(np.asarray(kinds), np.asarray(kind_of), index_factory)


class _Likeness:
    """Evidence of one taste, a float32 [d] of unit length. row: its place among those searched together."""

    __slots__ = ("_row", "_source", "_taste", "_together")

    def __init__(self, source: ContentSource, together: Together, row: int, taste: Float32Array) -> None:
        self._source, self._together, self._row, self._taste = source, together, row, taste

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        asked = self._source.kinds_of(k)
        while True:
            kinds, scores = self._together.best(self._row, asked)
            items, marks = self._source.members(kinds, scores, k)
            if len(items) == k or asked == k or len(kinds) < asked:
                return items, marks
            asked = k

    def at(self, items: Int32Array) -> Float32Array:
        return self._source.index.at(self._taste, self._source.kind_of[items])


def reduce(vectors: Float32Array, dim: int) -> Float32Array:
    """Centred, projected onto the `dim` main axes, rows scaled to unit length: float32 [i, dim].

    Rows that are zero (items without text) stay zero.
    """
    present = np.linalg.norm(vectors, axis=1) > 0
    if not present.any():
        return np.zeros((len(vectors), dim), np.float32)
    centred = np.where(present[:, None], vectors - vectors[present].mean(axis=0), 0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    kept = axes[:, np.argsort(-values)[:dim]]
    # the sign of an axis is arbitrary: fix it, so that equal data give equal vectors
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    reduced = centred @ kept
    norms = np.linalg.norm(reduced, axis=1, keepdims=True)
    unit: Float32Array = np.divide(reduced, norms, out=np.zeros_like(reduced), where=norms > 1e-9).astype(np.float32)
    return unit


def alike(vectors: Float32Array, count: int, index_factory: IndexFactory) -> sparse.csr_array:
    """float32 [i, i]: each item's `count` nearest others, weighted by their cosine, rows that add up to 1; none where
    nothing is alike. vectors: float32 [i, d], of unit length or zero."""
    places, scores = index_factory(vectors).search_many(vectors, count + 1)
    rows = np.repeat(np.arange(len(vectors)), places.shape[1])
    columns, values = places.ravel(), scores.ravel()
    kept = (rows != columns) & (values > 0)
    totals = np.bincount(rows[kept], values[kept], len(vectors))
    weights = (values[kept] / totals[rows[kept]]).astype(np.float32)
    return sparse.csr_array((weights, (rows[kept], columns[kept])), shape=(len(vectors), len(vectors)))
