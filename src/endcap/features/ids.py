"""Shop ids and the positions that stand for them inside a release."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.core.types import Int32Array

UNKNOWN = -1


class Vocabulary:
    """Ids in a fixed order; an id's position is its place in that order."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        self._position = {name: place for place, name in enumerate(self.ids)}
        if len(self._position) != len(self.ids):
            raise ValueError("ids repeat")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, name: str) -> bool:
        return name in self._position

    def position(self, name: str | None) -> int:
        """The id's position, or UNKNOWN."""
        return self._position.get(name, UNKNOWN) if name is not None else UNKNOWN

    def positions(self, names: Iterable[str]) -> Int32Array:
        """Positions int32 of the known ids among `names`, in their order; unknown ones are left out."""
        found = (self._position.get(name, UNKNOWN) for name in names)
        return np.fromiter((place for place in found if place != UNKNOWN), dtype=np.int32)

    def add(self, name: str) -> int:
        """The id's position; the next one for an id that is new."""
        place = self._position.get(name)
        if place is None:
            place = len(self.ids)
            self.ids.append(name)
            self._position[name] = place
        return place

    def mapping(self) -> pl.DataFrame:
        """Columns `id` and `position` (int32), to join with."""
        return pl.DataFrame({"id": self.ids, "position": np.arange(len(self.ids), dtype=np.int32)})

    def save(self, path: Path) -> None:
        pl.DataFrame({"id": self.ids}, schema={"id": pl.String}).write_parquet(path)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        return cls(pl.read_parquet(path)["id"].to_list())


def key64(text: str) -> int:
    """A stable 64-bit key of a text; equal texts have equal keys in every process and version."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def keys64(texts: Sequence[str]) -> NDArray[np.uint64]:
    """`key64` of many texts, uint64 [n]."""
    return np.frombuffer(b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts), dtype="<u8")


def basket_key(session_id: str | None, ts_ms: int) -> int:
    """The key of the basket or visit an event belongs to. Events without a session share one when they share a time."""
    return key64(session_id if session_id is not None else f"@{ts_ms}")
