"""What the sequence model's tower made of every shopper's history when a release was written.

An answer needs the tower only for who did something since. Which history a vector is of is told by a hash of its items,
so it does not matter how a history came to be the same or another: a vector that does not fit is passed over.

Legend: u shoppers, d width of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from endcap.core.errors import ArtifactError
from endcap.core.types import Float32Array, Int32Array, Int64Array
from endcap.features.ids import UNKNOWN
from endcap.features.sequences import Histories
from endcap.models.windows import PADDING

VECTORS, KEYS = "shopper_vectors.npy", "shopper_keys.npy"
READ_AT_ONCE = 256

Tower = Callable[[Int64Array], Float32Array]  # items int64 [n, length], padded behind -> float32 [n, d]


@dataclass(frozen=True, slots=True, eq=False)
class ReadShoppers:
    """vectors: float32 [u, d], by the row in the release's histories; 0 for who has nothing to read. keys: uint64 [u],
    of what was read."""

    vectors: Float32Array
    keys: NDArray[np.uint64]

    @classmethod
    def of(
        cls, tower: Tower, width: int, histories: Histories, is_read: NDArray[np.bool_], max_len: int
    ) -> ReadShoppers:
        """is_read: bool, by the code of an act's kind. max_len: how many of the newest such acts are read."""
        places = is_read[histories.events.kinds[:]].nonzero()[0]
        items = np.asarray(histories.events.items[places])
        ends = places.searchsorted(histories.offsets[1:])
        starts = np.maximum(np.concatenate([[0], ends[:-1]]), ends - max_len)
        lengths = ends - starts
        vectors = np.zeros((len(histories), width), np.float32)
        keys = np.fromiter((key_of(items[a:b]) for a, b in zip(starts, ends, strict=True)), np.uint64, len(histories))
        there = lengths.nonzero()[0]
        by_length = there[lengths[there].argsort(kind="stable")]
        for rows in np.split(by_length, range(READ_AT_ONCE, len(by_length), READ_AT_ONCE)):
            longest = int(lengths[rows].max(initial=0))
            steps = np.arange(longest)
            inside = steps < lengths[rows, None]
            padded = np.full(inside.shape, PADDING, np.int64)
            padded[inside] = items[(starts[rows, None] + steps)[inside]]
            vectors[rows] = tower(padded) if len(rows) else 0
        return cls(vectors, keys)

    def vector(self, row: int, followed: Int32Array) -> Float32Array | None:
        """float32 [d] of a shopper whose acts are these; None where others were read, or none of theirs."""
        if row == UNKNOWN or row >= len(self.keys) or int(self.keys[row]) != key_of(followed):
            return None
        vector: Float32Array = self.vectors[row]
        return vector

    def save(self, folder: Path) -> None:
        np.save(folder / VECTORS, self.vectors)
        np.save(folder / KEYS, self.keys)

    @classmethod
    def load(cls, folder: Path, width: int) -> ReadShoppers | None:
        """Memory-mapped. None where nothing was read; ArtifactError where it does not fit."""
        if not (folder / KEYS).is_file():
            return None
        try:
            found = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (VECTORS, KEYS))
            vectors, keys = (np.asarray(part) for part in found)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"The shoppers' vectors cannot be read: {error}.", where=str(folder), next_step="Train again."
            ) from error
        if vectors.shape != (len(keys), width) or vectors.dtype != np.float32 or keys.dtype != np.uint64:
            raise ArtifactError(
                "The shoppers' vectors are not this model's.", where=str(folder), next_step="Train again."
            )
        return cls(vectors, keys)


def key_of(followed: Int32Array) -> int:
    """XXH3 of the items, 64 bits."""
    return xxh3_64_intdigest(np.ascontiguousarray(followed, "<i4").tobytes())
