"""What a source says about every item, in the form that is cheapest for it."""

from __future__ import annotations

import itertools
import threading

import numpy as np

from endcap.core.protocols import VectorIndex
from endcap.core.ranking import Scores, best_positions, distinct
from endcap.core.types import Float32Array, Int32Array, Int64Array


class DenseEvidence:
    """scores: [items], of any float: `bincount` adds up in float64, and only what is asked for is made smaller."""

    __slots__ = ("_scores",)

    def __init__(self, scores: Scores) -> None:
        self._scores = scores

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        items = best_positions(self._scores, k, above=0).astype(np.int32)
        return items, self.at(items)

    def at(self, items: Int32Array) -> Float32Array:
        return self._scores[items].astype(np.float32)


class RankedEvidence:
    """A fixed ranking made when the source was fitted: the same for every shopper, so nothing is left to sort."""

    __slots__ = ("_order", "_scores")

    def __init__(self, scores: Float32Array, order: Int32Array) -> None:
        self._scores, self._order = scores, order

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        return self._order[:k], self._scores[self._order[:k]]

    def at(self, items: Int32Array) -> Float32Array:
        return self._scores[items]


class Together:
    """The searches of several vectors, made in one go when the first is asked for: it reads the index once, not once a
    vector. vectors: float32 [q, d]."""

    def __init__(self, index: VectorIndex, vectors: Float32Array) -> None:
        self._index, self._vectors = index, vectors
        self._found: tuple[int, Int32Array, Float32Array] | None = None

    def best(self, row: int, k: int) -> tuple[Int32Array, Float32Array]:
        """`search` of one of the vectors."""
        if len(self._vectors) == 1:
            return self._index.search(self._vectors[row], k)
        if self._found is None:
            self._found = (k, *self._index.search_many(self._vectors, k))
        asked, items, scores = self._found
        return (items[row, :k], scores[row, :k]) if k <= asked else self._index.search(self._vectors[row], k)


class SparseEvidence:
    """items: int32 [m], distinct and ascending; scores: [m], of any float. Every other item scores 0."""

    __slots__ = ("_items", "_scores")

    def __init__(self, items: Int32Array, scores: Scores) -> None:
        self._items, self._scores = items, scores

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        if not len(self._items):
            return self._items, np.empty(0, np.float32)
        rows = best_positions(self._scores, k, above=0)
        return self._items[rows], self._scores[rows].astype(np.float32)

    def at(self, items: Int32Array) -> Float32Array:
        if not len(self._items):
            return np.zeros(len(items), np.float32)
        scores = _blank(1 + max(int(self._items[-1]), int(items.max(initial=0))))
        try:
            scores[self._items] = self._scores
            return scores[items]
        finally:
            scores[self._items] = 0


SILENCE = SparseEvidence(np.empty(0, np.int32), np.empty(0, np.float32))
SPARSE = (
    8  # with fewer entries than this part of the items, most of a dense sum would be zeros that are written and read
)
TOGETHER_AT_MOST = 2**23  # places of several contexts that are summed in one go: 32 MB of scratch
_SCRATCH = threading.local()


def summed(
    places: Int32Array, values: Scores, n_places: int, items: Int32Array | None = None
) -> DenseEvidence | SparseEvidence:
    """What entries add up to. places: int32 [m], any number of times each, values: [m], of the entries. n_places: how
    many there are. items: int32 [n_places], ascending, whose each place is; the place itself, if left out. Costs as
    much as there are entries where these are few, however large the catalogue is."""
    if SPARSE * len(places) > n_places:
        dense = np.bincount(places, values, n_places)
        return DenseEvidence(dense) if items is None else SparseEvidence(items, dense)
    held, scores = sums(places, values, n_places)
    return SparseEvidence(held if items is None else items[held], scores)


def summed_many(
    rows: Int64Array,
    places: Int32Array,
    values: Scores,
    n_rows: int,
    n_places: int,
    items: Int32Array | None = None,
) -> list[DenseEvidence | SparseEvidence]:
    """`summed` for several contexts, in one go. rows: int64 [m], whose each entry is, ascending."""
    if SPARSE * len(places) > n_rows * n_places or n_rows * n_places > TOGETHER_AT_MOST:
        parts = itertools.pairwise(rows.searchsorted(np.arange(n_rows + 1)).tolist())
        return [summed(places[start:end], values[start:end], n_places, items) for start, end in parts]
    held, scores = sums((rows * n_places + places).astype(np.int32), values, n_rows * n_places)
    ends = held.searchsorted(np.arange(n_rows + 1) * n_places)
    held -= (np.arange(n_rows) * n_places).repeat(np.diff(ends)).astype(np.int32)
    found = held if items is None else items[held]
    return [SparseEvidence(found[start:end], scores[start:end]) for start, end in itertools.pairwise(ends.tolist())]


def sums(places: Int32Array, values: Scores, n_places: int) -> tuple[Int32Array, Scores]:
    """The distinct places, ascending, and what the entries of each add up to. For few entries; see `summed`."""
    held = distinct(places)
    row = _scratch(n_places)
    row[held] = np.arange(len(held), dtype=np.int32)
    return held, np.bincount(row[places], values, len(held))


def _blank(size: int) -> Float32Array:
    """float32 [>= size] of this thread, all 0, to be left so."""
    held: Float32Array | None = getattr(_SCRATCH, "scores", None)
    if held is None or len(held) < size:
        held = _SCRATCH.scores = np.zeros(size, np.float32)
    return held


def _scratch(size: int) -> Int32Array:
    """int32 [>= size] of this thread, holding anything."""
    held: Int32Array | None = getattr(_SCRATCH, "places", None)
    if held is None or len(held) < size:
        held = _SCRATCH.places = np.empty(size, np.int32)
    return held
