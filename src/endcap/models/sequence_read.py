"""What the sequence model's tower made of every shopper's history when a release was written.

An answer needs the tower only for who did something since. Which history a vector is of is told by a hash of its items,
so it does not matter how a history came to be the same or another: a vector that does not fit is passed over. Read are
the shoppers who were seen last and have a name: most anonymous visits do not come back.

Legend: r shoppers read, d width of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from endcap.core.errors import ArtifactError
from endcap.core.types import SESSION_PREFIX, Float32Array, Int32Array, Int64Array
from endcap.features.sequences import Histories
from endcap.models.windows import PADDING

PARTS = ("rows", "keys", "vectors")
FILES = tuple(f"shopper_{part}.npy" for part in PARTS)
READ_AT_ONCE = 256

Tower = Callable[[Int64Array], Float32Array]  # items int64 [n, length], padded behind -> float32 [n, d]


@dataclass(frozen=True, slots=True, eq=False)
class ReadShoppers:
    """rows: int64 [r], ascending, whose in the release's histories. keys: uint64 [r], of what was read. vectors:
    float32 [r, d]."""

    rows: Int64Array
    keys: NDArray[np.uint64]
    vectors: Float32Array

    @classmethod
    def of(
        cls, tower: Tower, width: int, histories: Histories, is_read: NDArray[np.bool_], max_len: int, most: int
    ) -> ReadShoppers:
        """is_read: bool, by the code of an act's kind. max_len: how many of the newest such acts are read. most:
        shoppers."""
        places = is_read[histories.events.kinds[:]].nonzero()[0]
        items, seen_ms = np.asarray(histories.events.items[places]), histories.events.ts_ms[places]
        ends = places.searchsorted(histories.offsets[1:])
        starts = np.concatenate([[0], ends[:-1]])
        named = np.array([not name.startswith(SESSION_PREFIX) for name in histories.users.ids], np.bool_)
        rows = (named & (ends > starts)).nonzero()[0]
        rows = np.sort(rows[(-seen_ms[ends[rows] - 1]).argsort(kind="stable")[:most]])
        ends = ends[rows]
        starts = np.maximum(starts[rows], ends - max_len)
        vectors = np.zeros((len(rows), width), np.float32)
        keys = np.fromiter((key_of(items[a:b]) for a, b in zip(starts, ends, strict=True)), np.uint64, len(rows))
        by_length = (ends - starts).argsort(kind="stable")
        for first in range(0, len(rows), READ_AT_ONCE):
            part = by_length[first : first + READ_AT_ONCE]
            lengths = (ends - starts)[part, None]
            steps = np.arange(int(lengths.max()))
            padded = np.full((len(part), len(steps)), PADDING, np.int64)
            padded[steps < lengths] = items[(starts[part, None] + steps)[steps < lengths]]
            vectors[part] = tower(padded)
        return cls(rows, keys, vectors)

    def vector(self, row: int, followed: Int32Array) -> Float32Array | None:
        """float32 [d] of a shopper whose acts are these; None where others were read, or none of theirs."""
        place = int(self.rows.searchsorted(row))
        if place == len(self.rows) or self.rows[place] != row or int(self.keys[place]) != key_of(followed):
            return None
        vector: Float32Array = self.vectors[place]
        return vector

    def save(self, folder: Path) -> None:
        for part, file in zip(PARTS, FILES, strict=True):
            np.save(folder / file, getattr(self, part))

    @classmethod
    def load(cls, folder: Path, width: int) -> ReadShoppers | None:
        """Memory-mapped. None where nothing was read; ArtifactError where it does not fit."""
        if not (folder / FILES[0]).is_file():
            return None
        try:
            parts = (np.load(folder / file, mmap_mode="r", allow_pickle=False) for file in FILES)
            rows, keys, vectors = (np.asarray(part) for part in parts)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"The shoppers' vectors cannot be read: {error}.", where=str(folder), next_step="Train again."
            ) from error
        kinds = [part.dtype.name for part in (rows, keys, vectors)]
        if kinds != ["int64", "uint64", "float32"] or vectors.shape != (len(rows), width) or keys.shape != rows.shape:
            raise ArtifactError(
                "The shoppers' vectors are not this model's.", where=str(folder), next_step="Train again."
            )
        return cls(rows, keys, vectors)


def key_of(followed: Int32Array) -> int:
    """XXH3 of the items, 64 bits."""
    return xxh3_64_intdigest(np.ascontiguousarray(followed, "<i4").tobytes())
