"""Exact nearest neighbours by inner product: the default up to some hundred thousand items, and the oracle that
approximate indexes are measured against.

A matrix product finds the finalists, and the finalists are scored again row by row. A product's last bits depend on
where a row lies in the matrix; the second scoring does not, so equal rows tie, and `search`, `search_many` and `at`
give the same score for the same row.

Legend: n rows, d dimensions, q queries.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from endcap.core.errors import ArtifactError, CallerError
from endcap.core.ranking import length, threshold
from endcap.core.types import Float32Array, Int32Array

SCORES_AT_ONCE = 8_000_000
ROWS_AT_ONCE = 65_536
EPS = float(np.finfo(np.float32).eps)


class ExactIndex:
    """vectors: float32 [n, d]; a memory map stays one."""

    __slots__ = ("_longest", "_vectors")

    def __init__(self, vectors: Float32Array, longest: float | None = None) -> None:
        """longest: the greatest length of a row, where it is known already; else the rows are read to find it."""
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise CallerError(
                f"The vectors are {vectors.dtype} {list(vectors.shape)}.",
                where="ExactIndex",
                next_step="Pass float32 [n, d].",
            )
        self._vectors: Float32Array = np.asarray(vectors)
        self._longest = _longest(self._vectors) if longest is None else longest
        if not np.isfinite(self._longest):
            raise CallerError(
                "A vector holds NaN or infinity.", where="ExactIndex", next_step="Mend the encoder that made it."
            )

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def vectors(self) -> Float32Array:
        return self._vectors

    @property
    def dim(self) -> int:
        return int(self._vectors.shape[1])

    def search(self, vector: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """The k rows (all, if there are fewer) with the greatest inner product, best first; ties in row order."""
        self.check(vector, 1)
        return self._finish(vector, self._vectors @ vector, k)

    def search_many(self, vectors: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """`search` for float32 [q, d]: positions int32 [q, min(k, n)], scores float32 [q, min(k, n)]."""
        self.check(vectors, 2)
        width = max(0, min(k, len(self)))
        items, scores = np.empty((len(vectors), width), np.int32), np.empty((len(vectors), width), np.float32)
        at_once = max(1, SCORES_AT_ONCE // max(len(self), 1))
        for start in range(0, len(vectors), at_once):
            part = vectors[start : start + at_once]
            products = np.ascontiguousarray((self._vectors @ part.T).T)  # rows first: twice as fast as queries first
            for row, rough in enumerate(products, start):
                items[row], scores[row] = self._finish(vectors[row], rough, k)
        return items, scores

    def at(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        """float32 [len(items)]: inner products with the given rows."""
        self.check(vector, 1)
        return self.products(vector, items)

    def products(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        """`at`, of a query that was checked."""
        scores: Float32Array
        if 2 * len(items) > len(self):  # gathering most rows costs more than scoring all of them where they are
            scores = np.einsum("nd,d->n", self._vectors, vector)[items]
        else:
            scores = np.einsum("nd,d->n", self._vectors.take(items, axis=0), vector)
        return scores

    def save(self, folder: Path) -> None:
        """Write `vectors.npy` and `index.json` into an existing folder."""
        np.save(folder / "vectors.npy", self._vectors)
        about = {"kind": "exact", "rows": len(self), "dim": self._vectors.shape[1], "longest": self._longest}
        (folder / "index.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path) -> ExactIndex:
        """Memory-mapped: the rows are read when they are searched."""
        about = json.loads((folder / "index.json").read_text())
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        if about.get("kind") != "exact" or [about["rows"], about["dim"]] != list(vectors.shape):
            raise ArtifactError(
                "The vectors are not those the index was saved with.",
                where=str(folder),
                next_step="Train again, or go back to an earlier release.",
            )
        return cls(vectors, about["longest"])

    def _finish(self, vector: Float32Array, rough: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """The k best of the rows whose product, give or take its rounding, may be among them."""
        k = max(0, min(k, len(rough)))
        if k == 0:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        finalists = (rough >= threshold(rough, k) - self._rounding(vector)).nonzero()[0].astype(np.int32)
        scores = self.products(vector, finalists)
        order = np.lexsort((finalists, -scores))[:k]
        return finalists[order], scores[order]

    def _rounding(self, vector: Float32Array) -> float:
        """How far apart the product's and the row's own score may make two rows that are equal, or nearly.

        A sum of d float32 terms errs by at most d * eps * |x| * |y| (Higham 2002, section 3.1); it enters four times:
        two rows, scored two ways.
        """
        terms = int(self._vectors.shape[1])
        return 4 * terms * EPS * self._longest * length(vector)

    def check(self, vector: Float32Array, ndim: int) -> None:
        """CallerError for a query of another type or width, or that is not finite."""
        if vector.ndim != ndim or vector.shape[-1] != self._vectors.shape[1] or vector.dtype != np.float32:
            raise CallerError(
                f"The query is {vector.dtype} {list(vector.shape)}; the index holds float32 of {self._vectors.shape[1]}"
                " dimensions.",
                where="ExactIndex",
                next_step="Encode queries and items with the same encoder.",
            )
        if not np.isfinite(vector).all():
            raise CallerError("The query holds NaN or infinity.", where="ExactIndex", next_step="Mend its encoder.")


def _longest(vectors: Float32Array) -> float:
    """The greatest row length; 0 for no rows. Reads a part at a time."""
    squares = [
        float(np.einsum("nd,nd->n", part, part, dtype=np.float64).max())
        for part in (vectors[start : start + ROWS_AT_ONCE] for start in range(0, len(vectors), ROWS_AT_ONCE))
    ]
    return float(np.sqrt(np.max(squares))) if squares else 0.0
