"""Search: what is meant and what is said, joined by reciprocal rank fusion (Cormack et al. 2009), for who asks.

A query's vector finds items that mean the same; BM25 finds those that hold its very words; and what the candidate
sources say of the shopper lifts those that fit. Filters are the same as for recommendations.

Legend: n items found, s sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from endcap.core.protocols import CandidateSource, Encoder, Filter, VectorIndex
from endcap.core.types import Candidates, Context, Float32Array, Int32Array, Query
from endcap.features.words import words_of
from endcap.index.lexical import LexicalIndex
from endcap.recommend.candidates import shares, weigh
from endcap.recommend.filters import every

RRF = 60  # the paper's constant: how fast a place's worth falls
PERSONAL = 0.3  # the most that a shopper's taste adds to an item's worth: it carries the twentieth to the top
LEAST = 100  # items that each way of finding proposes, or three times as many as are asked for
Personal = Callable[[Context, Int32Array], Float32Array]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """items: int32 [n], best first. scores: float32 [n]. ways: which of "meaning", "words", "shopper" each was found
    or favoured by: list [n]. degraded: ways that failed."""

    items: Int32Array
    scores: Float32Array
    ways: list[tuple[str, ...]]
    degraded: tuple[str, ...] = ()


class Searcher:
    """All parts are given. vectors: of the items, in the encoder's space. words: of the items' texts."""

    def __init__(
        self,
        *,
        encoder: Encoder[str] | None,
        vectors: VectorIndex | None,
        words: LexicalIndex,
        filters: Sequence[Filter],
        personal: Personal,
    ) -> None:
        """encoder, vectors: None where the release has no content vectors; words alone are searched then."""
        self.encoder, self.vectors, self.words = encoder, vectors, words
        self.filters, self.personal = tuple(filters), personal

    def text(self, query: Query, context: Context, text: str) -> Found:
        """Items for words that were typed or spoken."""
        lists: dict[str, Int32Array] = {"words": self._said(query, context, text)}
        degraded: list[str] = []
        if self.encoder is not None and text.strip():
            try:
                vector = self.encoder.encode([text])[0]
            except Exception:  # what the words find beats no answer; the answer says so
                degraded.append("meaning")
            else:
                lists["meaning"] = self._meant(query, context, vector)
        return self._joined(query, context, lists, degraded)

    def vector(self, query: Query, context: Context, vector: Float32Array) -> Found:
        """Items for a vector float32 [d] of the items' space, such as a picture's."""
        return self._joined(query, context, {"meaning": self._meant(query, context, vector)}, [])

    def _said(self, query: Query, context: Context, text: str) -> Int32Array:
        items, _ = self.words.best(words_of(text), self.words.texts)
        shown: Int32Array = items[every(self.filters, query, context, items)]
        return shown[: _asked(query)]

    def _meant(self, query: Query, context: Context, vector: Float32Array) -> Int32Array:
        """The nearest items that may be shown: further down the list where many may not."""
        if self.vectors is None or not vector.any():
            return np.empty(0, np.int32)
        allowed, wanted, asked = partial(every, self.filters, query, context), _asked(query), 2 * _asked(query)
        while True:
            items, scores = self.vectors.search(vector, asked)
            shown: Int32Array = items[(scores > 0) & allowed(items)]
            if len(shown) >= wanted or len(items) < asked or scores[-1] <= 0:
                return shown[:wanted]
            asked *= 4

    def _joined(self, query: Query, context: Context, lists: dict[str, Int32Array], degraded: list[str]) -> Found:
        """By the sum over lists of 1 / (RRF + place), lifted by taste; equal ones in the order of the items."""
        items = np.unique(np.concatenate([np.empty(0, np.int32), *lists.values()])).astype(np.int32)
        scores = np.zeros(len(items), np.float64)
        ways: list[tuple[str, ...]] = [()] * len(items)
        for way, ranked in lists.items():
            places = np.searchsorted(items, ranked)
            scores[places] += 1 / (RRF + 1 + np.arange(len(ranked)))
            for place in places:
                ways[place] = (*ways[place], way)
        try:
            favour = self.personal(context, items)
        except Exception:  # an order that fits nobody in particular beats no answer
            favour, degraded = np.zeros(len(items), np.float32), [*degraded, "shopper"]
        if favour.any():
            scores *= 1 + PERSONAL * np.maximum(favour, 0) / favour.max()
        for place in np.flatnonzero(favour > 0):
            ways[place] = (*ways[place], "shopper")
        order = np.lexsort((items, -scores))[: query.n]
        return Found(items[order], scores[order].astype(np.float32), [ways[at] for at in order], tuple(degraded))


def by_sources(sources: Sequence[CandidateSource], weights: Sequence[float]) -> Personal:
    """The shopper's order: each source's score over its best among the items, weighted. Nothing for a stranger."""

    def favour(context: Context, items: Int32Array) -> Float32Array:
        if not len(items) or not (len(context.items) or len(context.cart)):
            return np.zeros(len(items), np.float32)
        said = weigh(sources, [context])[0]
        scores = np.stack([entry.at(items) for entry in said], axis=1)
        ranks = np.zeros_like(scores)
        found: Float32Array = shares(Candidates.of(items, scores, ranks, len(items))) @ np.array(weights, np.float32)
        return found

    return favour


def _asked(query: Query) -> int:
    return max(LEAST, 3 * query.n)
