"""Shared words: items whose titles have rare words in common, such as a brand, a scent or a size.

An encoder reads what a title means; this reads which very words it holds, which tells brands and product lines apart.

Legend: i items, v words, X float32 [i, v], rows of unit length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy import sparse

from endcap.core.section import Section
from endcap.features.words import words_of
from endcap.models.neighbour_fits import CHUNK
from endcap.models.neighbours import NeighbourSource, keep_strongest


class WordsConfig(Section):
    neighbours: int = Field(100, ge=1, description="Items kept for each item.")
    common: int = Field(2000, ge=2, description="A word in the titles of more items than this is not counted.")


def fit_words(texts: Sequence[str], config: WordsConfig) -> sparse.csr_array:
    """W = X X' without the diagonal, each row's largest entries. X_iw = (1 + log n_iw) log(i / n_w), where text i holds
    the word w n_iw times and n_w texts hold it, at least two of them (Salton & Buckley 1988)."""
    counts = _counts(texts)
    holders = np.bincount(counts.indices, minlength=counts.shape[1])
    told = np.flatnonzero((holders > 1) & (holders <= config.common))
    x = counts[:, told]
    x.data = ((1 + np.log(x.data)) * np.log(len(texts) / holders[told])[x.indices]).astype(np.float32)
    lengths = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
    x.data /= np.repeat(np.maximum(lengths, 1e-9), np.diff(x.indptr)).astype(np.float32)
    across = sparse.csr_array(x.T)
    parts = []
    for start in range(0, len(texts), CHUNK):
        coo = sparse.coo_array(x[start : start + CHUNK] @ across)
        inside = coo.row + start != coo.col
        part = sparse.csr_array((coo.data[inside], (coo.row[inside], coo.col[inside])), shape=coo.shape)
        parts.append(keep_strongest(part, config.neighbours))
    return sparse.csr_array(sparse.vstack(parts, format="csr")) if parts else sparse.csr_array((0, 0))


def word_source(texts: Sequence[str], config: WordsConfig) -> NeighbourSource:
    return NeighbourSource.of("words", fit_words(texts, config), "recent")


def _counts(texts: Sequence[str]) -> sparse.csr_array:
    """float64 [i, v]: how often each text holds each word, words in the order of the first text that holds them."""
    numbers: dict[str, int] = {}
    held = [[numbers.setdefault(word, len(numbers)) for word in words_of(text)] for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(words) for words in held])])
    columns = np.array([number for words in held for number in words], np.int64)
    counts = sparse.csr_array((np.ones(len(columns)), columns, offsets), shape=(len(texts), len(numbers)))
    counts.sum_duplicates()
    return counts
