"""User-kNN: what shoppers with a similar taste have been buying lately.

Legend: p panel users, i items. The panel is every user, or the most active ones of a large shop; a shopper outside it,
even an anonymous one with three clicks, is compared with it all the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydantic import Field
from scipy import sparse

from endcap.core.ranking import best_positions, length
from endcap.core.runs import places_of
from endcap.core.section import Section
from endcap.core.types import Context, EventType, Evidence, Float32Array, Int32Array, Reason
from endcap.features.sequences import Histories
from endcap.models.evidence import SILENCE, summed, sums

DAY_MS = 86_400_000
REMOVE = EventType.REMOVE_FROM_CART.code
LOOKED_AT = 100


class ShopperConfig(Section):
    panel: int = Field(20_000, ge=1, description="Most users that a shopper is compared with.")
    neighbours: int = Field(150, ge=1, description="Similar users whose purchases count.")
    taste_half_life_days: float = Field(90.0, gt=0, description="Age at which an act counts half in a taste.")
    recent_half_life_days: float = Field(21.0, gt=0, description="Age at which a neighbour's purchase counts half.")


class SimilarShoppers:
    """score = sum over the nearest panel users of cosine(tastes) x what they bought lately.

    A taste is log(1 + decayed acts on each item) x the item's inverse user frequency (Breese et al. 1998).
    """

    name = "shoppers"

    def __init__(
        self,
        tastes: sparse.csr_array,
        lately: sparse.csr_array,
        rarity: Float32Array,
        rows: Int32Array,
        config: ShopperConfig,
    ) -> None:
        """tastes: float32 [i, p], columns of unit length. lately: float32 [p, i]. rarity: float32 [i].
        rows: int32 [p], each panel user's row in the release's histories, ascending."""
        self._tastes, self._lately, self._rarity, self._rows, self._config = tastes, lately, rarity, rows, config

    def weigh(self, context: Context) -> Evidence:
        items, weights = self._taste(context)
        if not len(items):
            return SILENCE
        entries, lengths = spans(self._tastes, items)
        values = self._tastes.data[entries] * weights.repeat(lengths)
        others, likeness = sums(self._tastes.indices[entries], values, len(self._rows))
        likeness = np.where(self._rows[others] == context.row, 0, likeness)  # a shopper is not their own neighbour
        nearest = best_positions(likeness, self._config.neighbours, above=0)
        entries, lengths = spans(self._lately, others[nearest])
        votes = self._lately.data[entries] * likeness[nearest].astype(np.float32).repeat(lengths)
        return summed(self._lately.indices[entries], votes, self._lately.shape[1])

    def explain(self, context: Context, item: int) -> Reason | None:
        return Reason(self.name, self.name)

    def save(self, folder: Path) -> None:
        for name, matrix in (("tastes", self._tastes), ("lately", self._lately)):
            for part in ("indptr", "indices", "data"):
                np.save(folder / f"{name}_{part}.npy", getattr(matrix, part))
        np.save(folder / "rarity.npy", self._rarity)
        np.save(folder / "rows.npy", self._rows)
        (folder / "source.json").write_text(json.dumps(self._config.model_dump()))

    @classmethod
    def load(cls, folder: Path) -> SimilarShoppers:
        rarity, rows = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("rarity", "rows"))
        config = ShopperConfig(**json.loads((folder / "source.json").read_text()))
        shapes = {"tastes": (len(rarity), len(rows)), "lately": (len(rows), len(rarity))}
        tastes, lately = (_load(folder, name, shape) for name, shape in shapes.items())
        return cls(tastes, lately, rarity, rows, config)

    def _taste(self, context: Context) -> tuple[Int32Array, Float32Array]:
        """Distinct items acted on, in the cart or looked at, with their weights; unit length. The `LOOKED_AT` of the
        most weight: what everybody has says least and would take most of the time."""
        acts = context.kinds != REMOVE
        items = np.concatenate([context.items[acts], context.cart])
        ages = np.concatenate([context.now_ms - context.ts_ms[acts], np.zeros(len(context.cart), np.int64)])
        if context.anchor >= 0:
            items, ages = np.append(items, np.int32(context.anchor)), np.append(ages, 0)
        if not len(items):
            return items, np.empty(0, np.float32)
        decay = 0.5 ** (np.maximum(ages, 0) / (self._config.taste_half_life_days * DAY_MS))
        distinct, often = sums(items, decay, len(self._rarity))
        weights = (np.log1p(often) * self._rarity[distinct]).astype(np.float32)
        strongest = np.sort(best_positions(weights, LOOKED_AT))
        distinct, weights = distinct[strongest], weights[strongest]
        return distinct, (weights / max(length(weights), 1e-9)).astype(np.float32)


def fit_shoppers(histories: Histories, n_items: int, until_ms: int, config: ShopperConfig) -> SimilarShoppers:
    """From histories that hold nothing at or after `until_ms`."""
    events = histories.events
    counts = np.diff(histories.offsets)
    rows = np.sort(np.argsort(-counts, kind="stable")[: config.panel]).astype(np.int32)
    owners = np.repeat(np.arange(len(counts)), counts)
    panel = np.full(len(counts), -1)
    panel[rows] = np.arange(len(rows))
    acts = (events.kinds != REMOVE) & (panel[owners] >= 0)
    users, items = panel[owners[acts]], events.items[acts]
    ages = np.maximum(until_ms - events.ts_ms[acts], 0) / DAY_MS
    shape = (len(rows), n_items)
    tastes = _summed(users, items, 0.5 ** (ages / config.taste_half_life_days), shape)
    lately = _summed(users, items, 0.5 ** (ages / config.recent_half_life_days), shape)
    holders = np.bincount(tastes.indices, minlength=n_items)
    rarity = np.log((1 + len(rows)) / np.maximum(holders, 1)).astype(np.float32)
    tastes.data = np.log1p(tastes.data) * rarity[tastes.indices]
    norms = np.sqrt(np.asarray(tastes.multiply(tastes).sum(axis=1)).ravel())
    tastes.data /= np.repeat(np.maximum(norms, 1e-9), np.diff(tastes.indptr)).astype(np.float32)
    lately.data = np.where(lately.data >= 0.05, np.minimum(lately.data, 2), 0).astype(np.float32)
    lately.eliminate_zeros()
    return SimilarShoppers(sparse.csr_array(tastes.T), lately, rarity, rows, config)


def spans(matrix: sparse.csr_array, rows: Int32Array) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Int32Array]:
    """Where the entries of some rows lie, end to end, and how many each row has."""
    starts = matrix.indptr[rows].astype(np.int64)
    lengths = matrix.indptr[rows + 1] - matrix.indptr[rows]
    return places_of(starts, lengths), lengths


def _summed(users: Int32Array, items: Int32Array, values: Float32Array, shape: tuple[int, int]) -> sparse.csr_array:
    matrix = sparse.csr_array((values.astype(np.float32), (users, items)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def _load(folder: Path, name: str, shape: tuple[int, int]) -> sparse.csr_array:
    data, indices, indptr = (
        np.asarray(np.load(folder / f"{name}_{part}.npy", mmap_mode="r", allow_pickle=False))
        for part in ("data", "indices", "indptr")
    )
    return sparse.csr_array((data, indices, indptr), shape=shape, copy=False)
