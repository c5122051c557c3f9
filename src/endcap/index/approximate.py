"""Approximate nearest neighbours by inner product, for catalogues that an exact scan is too slow for: FAISS's inverted
file (Jegou, Douze & Schmid 2011, "Product Quantization for Nearest Neighbor Search", section IV, without the codes).

Rows lie in lists around centroids, in fewer bits, and a search reads the lists nearest to the query; what it finds is
scored again by the rows themselves. How many lists it has to read is measured when the index is made, against
`ExactIndex`. A search that asks for more than those lists hold, as one for
which most favourites may not be shown, is answered exactly: what is approximate is who is among the nearest, never
how many are found.

Legend: n rows, d dimensions, q queries.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from endcap.core.determinism import rng
from endcap.core.errors import ArtifactError, MissingExtraError
from endcap.core.types import Float32Array, Int32Array
from endcap.index.exact import ExactIndex

LISTS, ABOUT = "lists.faiss", "index.json"
RECALL, AT = 0.99, 100  # what a search for so many has to find of the nearest, on the mean of the queries tried
TRIED = 200
LEARNED_FROM = 64  # rows a list that centroids are learned from
NEAREST = 4  # rows whose mean makes a query like a shopper's
FEWEST_LISTS = 16
WIDE = 128  # dimensions above which rows are kept in 8 bits each instead of 16


class ApproximateIndex:
    """read: lists read for 100 rows; more are for more."""

    def __init__(self, exact: ExactIndex, lists: Any, read: int, recall: float) -> None:
        """exact, lists: of the same rows, the latter FAISS's. recall: as measured when it was made."""
        self.exact, self.recall = exact, recall
        self._lists, self._read = lists, read

    @classmethod
    def build(cls, vectors: Float32Array, seed: int = 0) -> ApproximateIndex:
        """Learn centroids, fill the lists, and measure how many must be read. MissingExtraError without FAISS."""
        faiss, (n, d) = _faiss(), vectors.shape
        count = min(n, max(FEWEST_LISTS, 1 << round(np.log2(4 * np.sqrt(n)))))
        kept = faiss.ScalarQuantizer.QT_8bit if d > WIDE else faiss.ScalarQuantizer.QT_fp16
        around = faiss.IndexFlatIP(d)
        lists = faiss.IndexIVFScalarQuantizer(around, d, count, kept, faiss.METRIC_INNER_PRODUCT, False)
        lists.cp.seed, lists.cp.max_points_per_centroid, lists.cp.niter = seed + 1, LEARNED_FROM, 8
        lists.cp.min_points_per_centroid = 1
        lists.train(vectors)
        lists.add(vectors)
        found = cls(ExactIndex(vectors), lists, 1, 0.0)
        found._read, found.recall = found._measured(seed)
        return found

    def __len__(self) -> int:
        return len(self.exact)

    @property
    def dim(self) -> int:
        return self.exact.dim

    def search(self, vector: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """The k rows with the greatest inner product, best first, give or take a few; ties in row order."""
        items, scores = self.search_many(vector[None], k)
        return items[0], scores[0]

    def search_many(self, vectors: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """`search` for float32 [q, d]: positions int32 [q, min(k, n)], scores float32 [q, min(k, n)]."""
        self.exact.check(vectors, 2)
        k = max(0, min(k, len(self)))
        read = self._read * max(1, -(-k // AT))
        if not k or 2 * read > self._lists.nlist:
            return self.exact.search_many(vectors, k)
        items, scores = np.empty((len(vectors), k), np.int32), np.empty((len(vectors), k), np.float32)
        for row, (vector, rows) in enumerate(zip(vectors, self._near(vectors, k, read), strict=True)):
            if rows[-1] < 0:  # the lists held fewer
                items[row], scores[row] = self.exact.search(vector, k)
                continue
            found = self.exact.products(vector, rows)
            order = np.lexsort((rows, -found))
            items[row], scores[row] = rows[order], found[order]
        return items, scores

    def _near(self, vectors: Float32Array, k: int, read: int) -> Int32Array:
        """int32 [q, k]: what the nearest lists hold that is nearest by fewer bits, -1 after the last."""
        queries = np.ascontiguousarray(vectors)
        near, rough = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        # what `search` of the Python class calls; its own checks take as long as reading the lists
        into = _faiss().swig_ptr
        self._lists.search_c(len(queries), into(queries), k, into(rough), into(near), _reading(read))
        return near.astype(np.int32)

    def at(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        """float32 [len(items)]: inner products with the given rows."""
        return self.exact.at(vector, items)

    def save(self, folder: Path) -> None:
        """The lists, into an existing folder. Whose vectors they are is for the caller to keep."""
        _faiss().write_index(self._lists, str(folder / LISTS))
        about = {"kind": "ivf", "rows": len(self), "dim": self.dim, "read": self._read, "recall": self.recall}
        (folder / ABOUT).write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, exact: ExactIndex) -> ApproximateIndex:
        """exact: over the rows it was made of. ArtifactError for others."""
        faiss = _faiss()
        try:
            about = json.loads((folder / ABOUT).read_text())
            lists = faiss.read_index(str(folder / LISTS))
            matches = [about["rows"], about["dim"]] == list(exact.vectors.shape) == [lists.ntotal, lists.d]
            read, recall = int(about["read"]), float(about["recall"])
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ArtifactError(
                f"The index cannot be read: {error}.", where=str(folder), next_step="Train again."
            ) from error
        if not matches:
            raise ArtifactError(
                "The vectors are not those the index was made of.", where=str(folder), next_step="Train again."
            )
        return cls(exact, lists, read, recall)

    def _measured(self, seed: int) -> tuple[int, float]:
        """(lists to read, recall at 100): the fewest lists that find enough, in steps of a quarter. Which of equal
        rows are found does not count: items of one title have one vector."""
        queries = self._queries(seed)
        k = min(AT, len(self))
        least = self.exact.search_many(queries, k)[1][:, -1:]
        read = 1
        while True:
            near = self._near(queries, k, read)
            found = [self.exact.products(query, rows) for query, rows in zip(queries, near, strict=True)]
            recall = float(np.mean((near >= 0) & (np.array(found) >= least)))
            if recall >= RECALL:
                return read, recall
            if 2 * read > self._lists.nlist:
                return read, 1.0  # more than half: those searches are exact
            read += 1 + read // 4

    def _queries(self, seed: int) -> Float32Array:
        """float32 [q, d]: rows, and means of a few as a taste is."""
        draw, vectors = rng(seed, "queries that measure an index"), self.exact.vectors
        rows = vectors[draw.integers(0, len(vectors), (TRIED, NEAREST))]
        queries = np.array(rows[:, 0], np.float32)
        queries[1::2] = rows[1::2].mean(axis=1)
        return queries


@cache
def _reading(lists: int) -> Any:
    """FAISS's way of saying how many lists are read."""
    return _faiss().SearchParametersIVF(nprobe=lists)


@cache
def _faiss() -> ModuleType:
    """On one thread: requests run side by side."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which processor's build it loads is no news
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss-cpu", "large") from error
    faiss.omp_set_num_threads(1)
    found: ModuleType = faiss
    return found
