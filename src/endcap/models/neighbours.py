"""Sources that look from the items of a shopper to their neighbours in an item-to-item matrix.

One class serves them all: a sparse matrix says which items go with which, a gaze says which of the shopper's items
to look from and how hard. Item-kNN, EASE and the transition graph differ only in how the matrix was fitted.

Legend: i items, W float32 [i, i] in compressed rows, at most `neighbours` entries a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from endcap.core.types import Context, EventType, Evidence, Float32Array, Int32Array, Reason
from endcap.models.evidence import SILENCE, DenseEvidence

DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code
REMOVE = EventType.REMOVE_FROM_CART.code
Look = tuple[Int32Array, Float32Array]
Gaze = Callable[[Context], Look]


def recent(context: Context) -> Look:
    """The last 50 acts, the newest at weight 1, each older one at half; cart and anchor count as newest."""
    acts = context.items[context.kinds != REMOVE][-50:]
    items = np.concatenate([acts, context.cart])
    if context.anchor >= 0:
        items = np.append(items, np.int32(context.anchor))
    return items, (0.5 ** np.arange(len(items) - 1, -1, -1)).astype(np.float32)


def bought(context: Context) -> Look:
    """Everything bought, weighted by the log of how often and halved every 60 days since the last time."""
    age_days = np.maximum(context.now_ms - context.bought_last_ms, 0) / DAY_MS
    return context.bought, (np.log1p(context.bought_n) * 0.5 ** (age_days / 60)).astype(np.float32)


def cart(context: Context) -> Look:
    """What is in the cart, else what this visit looked at, and the item looked at now."""
    items = context.cart if len(context.cart) else context.session[-10:]
    if context.anchor >= 0:
        items = np.append(items, np.int32(context.anchor))
    return items, np.ones(len(items), np.float32)


def everything(context: Context) -> Look:
    """Each distinct item ever acted on, in the cart or looked at, at weight 1."""
    items = np.concatenate([context.items[context.kinds != REMOVE], context.cart])
    if context.anchor >= 0:
        items = np.append(items, np.int32(context.anchor))
    distinct = np.unique(items)
    return distinct, np.ones(len(distinct), np.float32)


GAZES: dict[str, Gaze] = {"recent": recent, "bought": bought, "cart": cart, "everything": everything}


class NeighbourSource:
    """scores = sum over the gaze's items of weight x W[item, :]."""

    def __init__(self, name: str, matrix: sparse.csr_array, gaze: str) -> None:
        self.name, self.gaze = name, gaze
        self._starts = matrix.indptr.astype(np.int64)
        self._columns = matrix.indices.astype(np.int32)
        self._values = matrix.data.astype(np.float32)
        self._n = int(matrix.shape[1])

    def weigh(self, context: Context) -> Evidence:
        items, weights = GAZES[self.gaze](context)
        entries, lengths = self._entries(items)
        if not len(entries):
            return SILENCE
        values = self._values[entries] * np.repeat(weights, lengths)
        return DenseEvidence(np.bincount(self._columns[entries], values, self._n).astype(np.float32))

    def explain(self, context: Context, item: int) -> Reason | None:
        """Because of the gaze's item that adds most to the score, among the 50 it looks at hardest."""
        items, weights = GAZES[self.gaze](context)
        hardest = np.argsort(-weights, kind="stable")[:50]
        items, weights = items[hardest], weights[hardest]
        entries, lengths = self._entries(items)
        hits = np.flatnonzero(self._columns[entries] == item)
        if not len(hits):
            return None
        origin = np.repeat(np.arange(len(items)), lengths)[hits]
        strength = self._values[entries[hits]] * weights[origin]
        return Reason(self.name, self.name, because=int(items[origin[np.argmax(strength)]]))

    def save(self, folder: Path) -> None:
        np.save(folder / "starts.npy", self._starts)
        np.save(folder / "columns.npy", self._columns)
        np.save(folder / "values.npy", self._values)
        (folder / "source.json").write_text(json.dumps({"name": self.name, "gaze": self.gaze, "n": self._n}))

    @classmethod
    def load(cls, folder: Path) -> NeighbourSource:
        about = json.loads((folder / "source.json").read_text())
        starts, columns, values = (
            np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False)
            for part in ("starts", "columns", "values")
        )
        matrix = sparse.csr_array((values, columns, starts), shape=(len(starts) - 1, about["n"]), copy=False)
        return cls(about["name"], matrix, about["gaze"])

    def _entries(self, items: Int32Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the rows of `items` lie in the matrix, end to end, and how long each row is."""
        starts = self._starts[items]
        lengths = self._starts[items + 1] - starts
        offsets = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) if len(items) else starts
        return offsets + np.arange(int(lengths.sum())), lengths


def keep_strongest(matrix: sparse.csr_array, per_row: int) -> sparse.csr_array:
    """The `per_row` largest positive entries of each row; equal ones in the order of the columns."""
    coo = matrix.tocoo()
    inside = coo.data > 0
    rows, columns, values = coo.row[inside], coo.col[inside], coo.data[inside]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    firsts = np.searchsorted(rows, np.arange(matrix.shape[0]))
    kept = np.arange(len(rows)) - firsts[rows] < per_row
    result = sparse.csr_array((values[kept].astype(np.float32), (rows[kept], columns[kept])), shape=matrix.shape)
    result.sort_indices()
    return result
