"""Which texts hold the very words that were asked for: BM25 over words (Robertson & Zaragoza 2009, section 3).

Meaning is what vectors are for; this finds names, sizes and part numbers, which no encoder has read of. The index is
that of bm25s: scores are worked out when it is made, so that a question is a sum of a few sparse columns.

Legend: n texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN

from endcap.core.errors import ArtifactError
from endcap.core.types import Float32Array, Int32Array

ABOUT = "lexical.json"


class LexicalIndex:
    """texts: how many there are."""

    def __init__(self, model: bm25s.BM25 | None, texts: int) -> None:
        """model: None where no text has a word."""
        self._model, self.texts = model, texts

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> LexicalIndex:
        """texts: the words of each."""
        if not any(texts):
            return cls(None, len(texts))
        model = bm25s.BM25(method="lucene")
        model.index([list(words) for words in texts], show_progress=False)
        return cls(model, len(texts))

    def scores(self, words: Sequence[str]) -> Float32Array:
        """float32 [n], 0 for texts that hold none of the words."""
        known = [] if self._model is None else [word for word in words if word in self._model.vocab_dict]
        if self._model is None or not known:
            return np.zeros(self.texts, np.float32)
        found: Float32Array = self._model.get_scores(known).astype(np.float32)
        return found

    def best(self, words: Sequence[str], k: int, least: float = 0.5) -> tuple[Int32Array, Float32Array]:
        """At most k texts, best first, equal ones in order: positions and scores. Only those that hold so large a share
        of what the words tell: a word that many texts have tells little, and one that none has tells most."""
        scores = self.scores(words)
        held = np.flatnonzero((scores > 0) & (self.told(words) >= least)).astype(np.int32)
        order = np.lexsort((held, -scores[held]))[:k]
        return held[order], scores[held[order]]

    def told(self, words: Sequence[str]) -> Float32Array:
        """float32 [n]: the share of the words' information (their inverse document frequencies) that each text has.
        Words like `for` tell nothing, though few titles hold them, unless there are no others."""
        found, weights = np.zeros(self.texts, np.float32), self.weights(words)
        for word, weight in weights.items():
            found[self._holders(word)] += weight
        whole = sum(weights.values())
        return found / whole if whole else found

    def weights(self, words: Sequence[str]) -> dict[str, float]:
        """word -> what it tells. Words like `for` are passed over unless there are no others."""
        asked = dict.fromkeys([word for word in words if word not in STOPWORDS_EN] or words)
        holders = {word: len(self._holders(word)) for word in asked}
        return {word: float(np.log(1 + (self.texts - n + 0.5) / (n + 0.5))) for word, n in holders.items()}

    def _holders(self, word: str) -> Int32Array:
        """The texts that hold a word."""
        if self._model is None or word not in self._model.vocab_dict:
            return np.empty(0, np.int32)
        column, parts = self._model.vocab_dict[word], self._model.scores
        holders: Int32Array = parts["indices"][parts["indptr"][column] : parts["indptr"][column + 1]]
        return holders

    def save(self, folder: Path) -> None:
        """Into an existing folder: npy and json."""
        (folder / ABOUT).write_text(json.dumps({"texts": self.texts, "empty": self._model is None}))
        if self._model is not None:
            self._model.save(str(folder / "bm25"), show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Memory-mapped."""
        try:
            about = json.loads((folder / ABOUT).read_text())
            model = None
            if not about["empty"]:
                model = bm25s.BM25.load(str(folder / "bm25"), mmap=True, show_progress=False)
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"The index of words cannot be read: {error}", where=str(folder), next_step="Train again."
            ) from error
        return cls(model, int(about["texts"]))
