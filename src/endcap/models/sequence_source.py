"""The sequence model as a candidate source. Serves from ONNX and npy files; imports no torch.

Dimension legend: n contexts, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import ArtifactError
from endcap.core.protocols import VectorIndex
from endcap.core.types import Context, EventType, Float32Array, Int32Array, Int64Array, Reason
from endcap.features.sequences import Histories
from endcap.models.evidence import Together
from endcap.models.sequence_read import FILES, ReadShoppers
from endcap.models.session import open_session
from endcap.models.windows import PADDING

IndexFactory = Callable[[Float32Array], VectorIndex]
TOWER, ITEM_VECTORS, SETTINGS = "user_tower.onnx", "item_vectors.npy", "sequence.json"
OURS = (TOWER, ITEM_VECTORS, SETTINGS, *FILES)
FOLLOWED = (EventType.VIEW, EventType.CLICK, EventType.ADD_TO_CART, EventType.PURCHASE)
READ_AT_ONCE = 16
FOLLOWED_KINDS = np.array([kind in FOLLOWED for kind in EventType], np.bool_)  # by code


class Settings(msgspec.Struct, frozen=True):
    """max_len: how many of the newest items the tower reads."""

    max_len: int


class SequenceSource:
    """What the sequence model expects next.

    Scores are <user, item> less the mean of that over the catalogue. The softmax the model was trained with does not
    see such a shift, so the model itself leaves open what 0 means; here it is the average item: above 0 is for, below
    0 against, and a context without any history gets 0, silence, for all.
    """

    name = "sequence"

    def __init__(
        self,
        tower: bytes,
        item_vectors: Float32Array,
        index: VectorIndex,
        settings: Settings,
        beside: Mapping[str, bytes] | None = None,
        read: ReadShoppers | None = None,
    ) -> None:
        """index: over the rows of item_vectors, float32 [n_items, d]. beside: files that `save` writes too, by name.
        read: what the tower made of shoppers before."""
        self.item_vectors, self.settings, self._beside, self._read = item_vectors, settings, beside or {}, read
        self._tower, self._index, self._session = tower, index, open_session(tower)
        self._mean_item: Float32Array = item_vectors.mean(axis=0, dtype=np.float64).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, index_factory: IndexFactory, *, with_weights: bool = False) -> Self:
        """From a folder written by `save` or by `models.export`. with_weights: keep what lies beside, the weights that
        a later model starts from (see `models.sequence_fit`), to be saved again; serving needs none of it."""
        try:
            tower = (folder / TOWER).read_bytes()
            item_vectors = np.asarray(np.load(folder / ITEM_VECTORS, mmap_mode="r", allow_pickle=False))
            settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=Settings)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise ArtifactError(
                f"The sequence model cannot be read: {error}.",
                where=str(folder),
                next_step="Train again, or `endcap rollback` to an earlier release.",
            ) from error
        beside = _beside(folder) if with_weights else {}
        read = ReadShoppers.load(folder, item_vectors.shape[1])
        return cls(tower, item_vectors, index_factory(item_vectors), settings, beside, read)

    @property
    def searched(self) -> Float32Array:
        """float32 [n_items, d]: what the index is of."""
        return self.item_vectors

    @property
    def n_items(self) -> int:
        return len(self.item_vectors)

    def weigh(self, context: Context) -> SequenceEvidence:
        return self.weigh_many([context])[0]

    def weigh_many(self, contexts: Sequence[Context]) -> list[SequenceEvidence]:
        """The tower reads contexts of about equal length together, but for those of which it was told before."""
        histories = [followed_items(context, self.settings.max_len) for context in contexts]
        found = [SequenceEvidence(self._index, None, 0.0)] * len(contexts)
        rows = [row for row, history in enumerate(histories) if len(history)]
        vectors = np.empty((len(rows), self.item_vectors.shape[1]), np.float32)
        unread = []
        for place, row in enumerate(rows):
            before = None if self._read is None else self._read.vector(contexts[row].row, histories[row])
            if before is None:
                unread.append(place)
            else:
                vectors[place] = before
        unread.sort(key=lambda place: len(histories[rows[place]]))
        for start in range(0, len(unread), READ_AT_ONCE):
            part = unread[start : start + READ_AT_ONCE]
            items = np.full((len(part), len(histories[rows[part[-1]]])), PADDING, dtype=np.int64)
            for line, place in zip(items, part, strict=True):
                line[: len(histories[rows[place]])] = histories[rows[place]]
            vectors[part] = self._tower_reads(items)
        together = Together(self._index, vectors)
        for place, (row, vector, baseline) in enumerate(zip(rows, vectors, vectors @ self._mean_item, strict=True)):
            found[row] = SequenceEvidence(self._index, vector, float(baseline), together, place)
        return found

    def read(self, histories: Histories, most: int) -> ReadShoppers:
        """What the tower makes of the shoppers seen last, so many at most, to be kept beside it."""
        width, max_len = self.item_vectors.shape[1], self.settings.max_len
        return ReadShoppers.of(self._tower_reads, width, histories, FOLLOWED_KINDS, max_len, most)

    def _tower_reads(self, items: Int64Array) -> Float32Array:
        """float32 [n, d] of items int64 [n, length], padded behind."""
        vectors: Float32Array = self._session.run(None, {"items": items})[0]
        return vectors

    def explain(self, context: Context, item: int) -> Reason | None:
        return Reason(self.name, "next_for_you") if len(followed_items(context, 1)) else None

    def save(self, folder: Path) -> None:
        replace_atomically(folder / TOWER, self._tower)
        np.save(folder / ITEM_VECTORS, self.item_vectors, allow_pickle=False)
        replace_atomically(folder / SETTINGS, encode_settings(self.settings))
        for name, content in self._beside.items():
            (folder / name).parent.mkdir(exist_ok=True)
            replace_atomically(folder / name, content)


@dataclass(frozen=True, slots=True)
class SequenceEvidence:
    """Evidence of one context. vector: float32 [d], or None without history. row: its place among those searched
    together."""

    index: VectorIndex
    vector: Float32Array | None
    baseline: float
    together: Together | None = None
    row: int = 0

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        if self.together is None:
            return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
        items, products = self.together.best(self.row, k)
        scores = products - np.float32(self.baseline)
        kept = scores > 0
        return items[kept], scores[kept]

    def at(self, items: Int32Array) -> Float32Array:
        if self.vector is None:
            return np.zeros(len(items), dtype=np.float32)
        return self.index.at(self.vector, items) - np.float32(self.baseline)


def followed_items(context: Context, max_len: int) -> Int32Array:
    """int32 [<= max_len]: the newest items viewed, clicked, put in the cart or bought, oldest first."""
    return context.items[FOLLOWED_KINDS[context.kinds]][-max_len:]


def _beside(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in named.items() if name not in OURS}


def encode_settings(settings: Settings) -> bytes:
    return msgspec.json.format(msgspec.json.encode(settings), indent=1)
