"""Sources that look from the items of a shopper to their neighbours in an item-to-item matrix.

One class serves them all: a sparse matrix says which items go with which, a gaze says which of the shopper's items
to look from and how hard. Item-kNN, EASE and the transition graph differ only in how the matrix was fitted.

Legend: i items, W float32 [i, i] in compressed rows, at most `neighbours` entries a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from endcap.core.ranking import best_positions, distinct
from endcap.core.runs import places_of
from endcap.core.types import Context, EventType, Evidence, Float32Array, Int32Array, Int64Array, Reason
from endcap.models.evidence import SILENCE, summed, summed_many

DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code
REMOVE = EventType.REMOVE_FROM_CART.code
Look = tuple[Int32Array, Float32Array]
Gaze = Callable[[Context], Look]
KEPT = 128  # looks that sources share, and reasons after them: as many as contexts are asked about together, and some
EXPLAINED_BY = 20
PARTS = ("starts", "columns", "values", "reached")


@lru_cache(maxsize=KEPT)
def recent(context: Context) -> Look:
    """The last 50 acts, the newest at weight 1, each older one at half; cart and anchor count as newest."""
    acts = context.items[context.kinds != REMOVE][-50:]
    items = np.concatenate([acts, context.cart])
    if context.anchor >= 0:
        items = np.append(items, np.int32(context.anchor))
    return items, (0.5 ** np.arange(len(items) - 1, -1, -1)).astype(np.float32)


def last(context: Context) -> Look:
    """The item looked at, else the newest in the cart, else the newest act, at weight 1."""
    items, _ = recent(context)
    return items[-1:], np.ones(min(1, len(items)), np.float32)


@lru_cache(maxsize=KEPT)
def bought(context: Context) -> Look:
    """What was bought, weighted by the log of how often and halved every 60 days since the last time; the 100 items of
    the most weight."""
    age_days = np.maximum(context.now_ms - context.bought_last_ms, 0) / DAY_MS
    weights = (np.log1p(context.bought_n) * 0.5 ** (age_days / 60)).astype(np.float32)
    hardest = best_positions(weights, 100)
    return context.bought[hardest], weights[hardest]


def cart(context: Context) -> Look:
    """What is in the cart, else what this visit looked at, and the item looked at now."""
    items = context.cart if len(context.cart) else context.session[-10:]
    if context.anchor >= 0:
        items = np.append(items, np.int32(context.anchor))
    return items, np.ones(len(items), np.float32)


@lru_cache(maxsize=KEPT)
def everything(context: Context) -> Look:
    """Each distinct item of the last 400 acts, in the cart or looked at, at weight 1."""
    items = np.concatenate([context.items[context.kinds != REMOVE][-400:], context.cart])
    if context.anchor >= 0:
        items = np.append(items, np.int32(context.anchor))
    items = distinct(items)
    return items, np.ones(len(items), np.float32)


GAZES: dict[str, Gaze] = {"recent": recent, "last": last, "bought": bought, "cart": cart, "everything": everything}


class NeighbourSource:
    """scores = sum over the gaze's items of weight x W[item, :].

    W is held without its empty columns where they are many, so that a matrix over few of the items, such as EASE's,
    costs little to sum.
    """

    def __init__(
        self, name: str, gaze: str, starts: Int64Array, columns: Int32Array, values: Float32Array, reached: Int32Array
    ) -> None:
        """starts: int64 [i + 1], where each row begins in columns and values. columns: places in `reached`, which are
        the items with any neighbour, ascending."""
        self.name, self.gaze = name, gaze
        self._starts, self._columns, self._values, self._reached = starts, columns, values, reached
        self._explained: tuple[Context, tuple[Int32Array, Int32Array, Float32Array, Int64Array]] | None = None

    @classmethod
    def of(cls, name: str, matrix: sparse.csr_array, gaze: str) -> NeighbourSource:
        """matrix: W, with all its columns."""
        reached = np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1])).astype(np.int32)
        if 2 * len(reached) > matrix.shape[1]:
            reached = np.arange(matrix.shape[1], dtype=np.int32)
        columns = reached.searchsorted(matrix.indices).astype(np.int32)
        return cls(name, gaze, matrix.indptr.astype(np.int64), columns, matrix.data.astype(np.float32), reached)

    def weigh(self, context: Context) -> Evidence:
        return self.spread(*GAZES[self.gaze](context))

    def weigh_many(self, contexts: Sequence[Context]) -> list[Evidence]:
        if not contexts:
            return []
        looks = [GAZES[self.gaze](context) for context in contexts]
        items, weights = (np.concatenate(parts) for parts in zip(*looks, strict=True))
        entries, lengths = self._entries(items)
        owners = np.arange(len(looks)).repeat([len(items) for items, _ in looks])
        values = self._values[entries] * weights.repeat(lengths)
        n, reached = len(self._reached), self._reaches_few()
        return [*summed_many(owners.repeat(lengths), self._columns[entries], values, len(looks), n, reached)]

    def spread(self, items: Int32Array, weights: Float32Array) -> Evidence:
        """What the neighbours of some items add up to. weights: float32 [len(items)]."""
        entries, lengths = self._entries(items)
        if not len(entries):
            return SILENCE
        values = self._values[entries] * weights.repeat(lengths)
        return summed(self._columns[entries], values, len(self._reached), self._reaches_few())

    def explain(self, context: Context, item: int) -> Reason | None:
        """Because of the gaze's item that adds most to the score, among the 20 it looks at hardest."""
        place = int(self._reached.searchsorted(np.int32(item)))  # of another type, all of it would be converted
        if place == len(self._reached) or self._reached[place] != item:
            return None
        items, columns, strengths, origins = self._hardest(context)
        hits = (columns == place).nonzero()[0]
        if not len(hits):
            return None
        return Reason(self.name, self.name, because=int(items[origins[hits[strengths[hits].argmax()]]]))

    def _hardest(self, context: Context) -> tuple[Int32Array, Int32Array, Float32Array, Int64Array]:
        """The items looked at hardest, and of the entries of their rows the column, the strength and the row. Kept for
        the last context: the items of one slate are explained one after the other."""
        held = self._explained
        if held is None or held[0] is not context:
            items, weights = GAZES[self.gaze](context)
            hardest = np.argsort(-weights, kind="stable")[:EXPLAINED_BY]
            items, weights = items[hardest], weights[hardest]
            entries, lengths = self._entries(items)
            origins = np.repeat(np.arange(len(items)), lengths)
            held = (context, (items, self._columns[entries], self._values[entries] * weights[origins], origins))
            self._explained = held
        return held[1]

    def save(self, folder: Path) -> None:
        for part in PARTS:
            np.save(folder / f"{part}.npy", getattr(self, f"_{part}"))
        (folder / "source.json").write_text(json.dumps({"name": self.name, "gaze": self.gaze}))

    @classmethod
    def load(cls, folder: Path) -> NeighbourSource:
        about = json.loads((folder / "source.json").read_text())
        parts = (np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in PARTS)
        return cls(about["name"], about["gaze"], *map(np.asarray, parts))

    def _reaches_few(self) -> Int32Array | None:
        """The items with any neighbour, where these are not all."""
        return self._reached if len(self._reached) < len(self._starts) - 1 else None

    def _entries(self, items: Int32Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the rows of `items` lie in the matrix, end to end, and how long each row is."""
        starts = self._starts[items]
        lengths = self._starts[items + 1] - starts
        return places_of(starts, lengths), lengths


def keep_strongest(matrix: sparse.csr_array, per_row: int) -> sparse.csr_array:
    """The `per_row` largest positive entries of each row; equal ones in the order of the columns."""
    matrix = matrix.sorted_indices()
    kept = matrix.data > 0
    for row in np.flatnonzero(np.diff(matrix.indptr) > per_row):
        entries = slice(matrix.indptr[row], matrix.indptr[row + 1])
        kept[entries] = False
        kept[entries.start + best_positions(matrix.data[entries], per_row, above=0)] = True
    lengths = np.bincount(
        np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[kept], minlength=matrix.shape[0]
    )
    starts = np.concatenate([[0], lengths.cumsum()])
    return sparse.csr_array((matrix.data[kept].astype(np.float32), matrix.indices[kept], starts), shape=matrix.shape)
