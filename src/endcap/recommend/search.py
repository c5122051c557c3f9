"""Search: what is meant and what is said, joined by reciprocal rank fusion (Cormack et al. 2009), for who asks.

A query's vector finds items that mean the same; BM25 finds those that hold its very words; and what the candidate
sources say of the shopper lifts those that fit. Filters are the same as for recommendations.

Legend: n items found, s sources.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from endcap.core.errors import CallerError, DataError
from endcap.core.faults import origin
from endcap.core.protocols import CandidateSource, Encoder, Filter, VectorIndex
from endcap.core.types import Candidates, Context, Float32Array, Int32Array, Query
from endcap.features.words import words_of
from endcap.index.lexical import LexicalIndex
from endcap.recommend.arrivals import WideWords
from endcap.recommend.candidates import shares, weigh
from endcap.recommend.filters import every
from endcap.recommend.sights import Sights, once

LOG = logging.getLogger(__name__)
RRF = 60  # the paper's constant: how fast a place's worth falls
PERSONAL = 0.3  # the most that a shopper's taste adds to an item's worth: it carries the twentieth to the top
PERSONAL_SEEN = 0.03  # the same for a picture, which says what is wanted: the third
LOOKS = 2.0  # what a place among the pictures is worth against one among the words, for a picture
LEAST = 100  # items that each way of finding proposes, or three times as many as are asked for
Lexical = LexicalIndex | WideWords
Personal = Callable[[Context, Int32Array], Float32Array]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """items: int32 [n], best first. scores: float32 [n]. ways: list [n], how each was found or favoured: "meaning",
    "words", "picture" (like the one that was sent), "depicted" (by its own picture, for words), "shopper". degraded:
    ways that failed."""

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
        words: Lexical,
        filters: Sequence[Filter],
        personal: Personal,
        sights: Sights | None = None,
    ) -> None:
        """encoder, vectors: None where the release has no content vectors; words alone are searched then. sights: None
        where it has no pictures."""
        self.encoder, self.vectors, self.words, self.sights = encoder, vectors, words, sights
        self.filters, self.personal = tuple(filters), personal
        self._said_of: set[str] = set()

    def widened(
        self,
        filters: Sequence[Filter],
        personal: Personal,
        vectors: VectorIndex | None,
        words: WideWords,
    ) -> Searcher:
        """The same with other indexes, of items that came later too. Pictures of these are not searched."""
        return Searcher(
            encoder=self.encoder,
            vectors=vectors,
            words=words,
            filters=filters,
            personal=personal,
            sights=self.sights,
        )

    def nearest(self, vector: Float32Array) -> tuple[int, float]:
        """The item whose words mean what a vector does most, and the cosine. ValueError without vectors."""
        if self.vectors is None:
            raise ValueError("there are no vectors to search")
        items, scores = self.vectors.search(vector, 1)
        return int(items[0]), float(scores[0])

    def text(self, query: Query, context: Context, text: str) -> Found:
        """Items for words that were typed or spoken."""
        lists: dict[str, Int32Array] = {"words": self._said(query, context, text)}
        degraded: list[str] = []
        if self.encoder is not None and text.strip():
            try:
                vector = self.encoder.encode([text])[0]
            except Exception as error:  # what the words find beats no answer; the answer says so
                self._say_once("meaning", error)
                degraded.append("meaning")
            else:
                if self.sights is not None and vector.any():
                    lists["depicted"] = self._shown(query, context, self.sights.depicted(vector))
                lists["meaning"] = self._near(query, context, self.vectors, vector)
        return self._joined(query, context, lists, degraded)

    def picture(self, query: Query, context: Context, picture: bytes) -> Found:
        """Items that look like a picture, or whose words fit it. DataError for bytes that are no picture, CallerError
        where the release has none to compare it with."""
        if self.sights is None:
            raise CallerError(
                "The release has no pictures to compare with.",
                where="search",
                next_step="Name the items' pictures in the catalogue (`images`), and train.",
            )
        if not picture:
            raise DataError("There is no picture.", where="picture", next_step="Send the bytes of one.")
        sights = self.sights
        try:
            seen = sights.eye.encode([picture])
        except DataError as error:
            raise DataError(error.what, where="picture", next_step="Send another.") from error
        vector = sights.laid(seen)[0]
        lists = {"picture": self._near(query, context, sights.photos, vector, sights.items)}
        first = sights.same(seen[0], lists["picture"])
        worth, alone = {"picture": LOOKS, "meaning": 1.0}, {}
        if (described := sights.described) is not None:
            lists["meaning"] = self._near(query, context, described.vectors, np.append(vector, np.float32(1)))
            # what only one of the two can know is not put back for it
            alone = {"meaning": sights.unseen, "picture": described.wordless}
        return self._joined(query, context, lists, [], worth=worth, alone=alone, personal=PERSONAL_SEEN, first=first)

    def _said(self, query: Query, context: Context, text: str) -> Int32Array:
        items, _ = self.words.best(words_of(text), self.words.texts)
        return self._shown(query, context, items)

    def _shown(self, query: Query, context: Context, items: Int32Array) -> Int32Array:
        """The first of those that may be."""
        shown: Int32Array = items[every(self.filters, query, context, items)]
        return shown[: _asked(query)]

    def _near(
        self,
        query: Query,
        context: Context,
        index: VectorIndex | None,
        vector: Float32Array,
        owners: Int32Array | None = None,
    ) -> Int32Array:
        """The nearest items that may be shown: further down the list where many may not. owners: int32 [rows], whose
        each row of the index is; of the item at its place, if left out."""
        if index is None or not vector.any():
            return np.empty(0, np.int32)
        allowed, wanted, asked = partial(every, self.filters, query, context), _asked(query), 2 * _asked(query)
        while True:
            rows, scores = index.search(vector, asked)
            rows = rows[scores > 0]
            items = rows if owners is None else once(owners[rows])
            shown: Int32Array = items[allowed(items)]
            if len(shown) >= wanted or len(rows) < asked:
                return shown[:wanted]
            asked *= 4

    def _joined(
        self,
        query: Query,
        context: Context,
        lists: dict[str, Int32Array],
        degraded: list[str],
        *,
        worth: Mapping[str, float] | None = None,
        alone: Mapping[str, NDArray[np.bool_]] | None = None,
        personal: float = PERSONAL,
        first: Int32Array | None = None,
    ) -> Found:
        """By the sum over lists of worth / (RRF + place), lifted by taste; equal ones in the order of the items. worth:
        of a list, 1 where it is not said. alone: of a list, the items that only it can hold, bool [items]: their places
        there count for all lists. personal: the most that taste adds. first: what goes before all others, if found."""
        worth, alone = worth or {}, alone or {}
        whole = sum(worth.get(way, 1.0) for way in lists)
        items = np.unique(np.concatenate([np.empty(0, np.int32), *lists.values()])).astype(np.int32)
        scores = np.zeros(len(items), np.float64)
        ways: list[tuple[str, ...]] = [()] * len(items)
        for way, ranked in lists.items():
            places = np.searchsorted(items, ranked)
            each = np.full(len(ranked), worth.get(way, 1.0))
            if way in alone:
                each[alone[way][ranked]] = whole
            scores[places] += each / (RRF + 1 + np.arange(len(ranked)))
            for place in places:
                ways[place] = (*ways[place], way)
        try:
            favour = self.personal(context, items)
        except Exception as error:  # an order that fits nobody in particular beats no answer
            self._say_once("shopper", error)
            favour, degraded = np.zeros(len(items), np.float32), [*degraded, "shopper"]
        if favour.any():
            scores *= 1 + personal * np.maximum(favour, 0) / favour.max()
        for place in np.flatnonzero(favour > 0):
            ways[place] = (*ways[place], "shopper")
        if first is not None:
            scores[np.isin(items, first)] += 1.0
        order = np.lexsort((items, -scores))[: query.n]
        return Found(items[order], scores[order].astype(np.float32), [ways[at] for at in order], tuple(degraded))

    def _say_once(self, way: str, error: Exception) -> None:
        """In the log, for whoever runs the server: the first time that a way fails with all, then no more."""
        if way not in self._said_of:
            self._said_of.add(way)
            LOG.warning("Search goes on without %s: %s", way, origin(error))


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
