"""Content similarity: items whose text is like what the shopper turned to lately. The answer for new items.

Legend: i items, d dimensions of the reduced content vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from endcap.core.protocols import VectorIndex
from endcap.core.types import Context, Evidence, Float32Array, Reason
from endcap.models.evidence import SILENCE, VectorEvidence
from endcap.models.neighbours import recent

IndexFactory = Callable[[Float32Array], VectorIndex]


class ContentSource:
    """Cosine of an item's vector with the recency-weighted mean of the last acts' vectors."""

    name = "content"

    def __init__(self, vectors: Float32Array, index_factory: IndexFactory) -> None:
        self.vectors = vectors
        self.index = index_factory(vectors)

    def weigh(self, context: Context) -> Evidence:
        items, weights = recent(context)
        if not len(items):
            return SILENCE
        taste = weights @ self.vectors[items]
        norm = float(np.linalg.norm(taste))
        return SILENCE if norm == 0 else VectorEvidence(self.index, (taste / norm).astype(np.float32))

    def explain(self, context: Context, item: int) -> Reason | None:
        items, weights = recent(context)
        if not len(items):
            return None
        likeness = weights * (self.vectors[items] @ self.vectors[item])
        return Reason(self.name, self.name, because=int(items[np.argmax(likeness)]))

    def save(self, folder: Path) -> None:
        np.save(folder / "vectors.npy", self.vectors)
        (folder / "source.json").write_text(json.dumps({"dim": int(self.vectors.shape[1])}))

    @classmethod
    def load(cls, folder: Path, index_factory: IndexFactory) -> ContentSource:
        return cls(np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False), index_factory)


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
