"""Search over items that came after the release: their words and vectors are few, and are compared one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from endcap.core.protocols import VectorIndex
from endcap.core.types import Float32Array, Int32Array
from endcap.features.words import words_of
from endcap.index.lexical import LexicalIndex


class WideVectors:
    """An index with rows behind it that can be filled, for `room` more items. Rows that are blank are never found."""

    def __init__(self, index: VectorIndex, known: int, dim: int, room: int) -> None:
        self._index, self._known = index, known
        self._rows, self._until = np.zeros((room, dim), np.float32), 0

    def take_over(self, before: WideVectors) -> None:
        """What was known with less room."""
        self._rows[: len(before._rows)], self._until = before._rows, before._until

    def put(self, place: int, vector: Float32Array) -> None:
        """vector: float32 [dim] of the item at a position behind the known ones."""
        self._rows[place - self._known] = vector
        self._until = max(self._until, place - self._known + 1)

    def search(self, vector: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        items, scores = self._index.search(vector, k)
        new = np.arange(self._known, self._known + self._until, dtype=np.int32)
        both = np.concatenate([items, new])
        marks = np.concatenate([scores, self._rows[: self._until] @ vector])
        order = np.lexsort((both, -marks))[:k]
        return both[order], marks[order]

    def search_many(self, vectors: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        found = [self.search(vector, k) for vector in vectors]
        return np.stack([items for items, _ in found]), np.stack([scores for _, scores in found])

    def at(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        known = items < self._known
        scores = np.empty(len(items), np.float32)
        scores[known] = self._index.at(vector, items[known])
        scores[~known] = self._rows[items[~known] - self._known] @ vector
        return scores


class WideWords:
    """A lexical index with texts behind it that can be added."""

    def __init__(self, index: LexicalIndex) -> None:
        self._index, self.texts = index, index.texts
        self._new: dict[int, frozenset[str]] = {}

    def put(self, place: int, text: str) -> None:
        self._new[place] = frozenset(words_of(text))
        self.texts = max(self.texts, place + 1)

    def best(self, words: Sequence[str], k: int, least: float = 0.5) -> tuple[Int32Array, Float32Array]:
        """As `LexicalIndex.best`. A new text's score is what its words tell, as that of a text of usual length is."""
        items, scores = self._index.best(words, k, least)
        weights = self._index.weights(words)
        whole = sum(weights.values())
        told = {
            place: sum(weights[word] for word in weights if word in held) for place, held in list(self._new.items())
        }
        new = [place for place, tells in told.items() if whole and tells > 0 and tells >= least * whole]
        both = np.concatenate([items, np.array(new, np.int32)])
        marks = np.concatenate([scores, np.array([told[place] for place in new], np.float32)])
        order = np.lexsort((both, -marks))[:k]
        return both[order], marks[order]
