"""Which texts hold the very words that were asked for: BM25 over words (Robertson & Zaragoza 2009, section 3).

Meaning is what vectors are for; this finds brands, sizes and part numbers, which no encoder has read of. The index is
that of bm25s: scores are worked out when it is made, so that a question is a sum of a few sparse columns.

Legend: n texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np

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

    def best(self, words: Sequence[str], k: int) -> tuple[Int32Array, Float32Array]:
        """At most k texts that hold any of the words, best first, equal ones in order: positions and scores."""
        scores = self.scores(words)
        held = np.flatnonzero(scores > 0).astype(np.int32)
        order = np.lexsort((held, -scores[held]))[:k]
        return held[order], scores[held[order]]

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
