"""A loaded release's view of the catalogue, kept at what the shop says now.

Stock, visibility, price, names and categories of known items change in place. An item that is new gets a row behind
the others: it may be shown, filtered and searched at once, and the sources speak of it through the known item that it
is most like (`recommend.kin`). A training or a refit gives it a past of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock, Thread

import numpy as np

from endcap.app.publish import Release, build_pipeline
from endcap.app.search import personal
from endcap.core.types import Float32Array, Item
from endcap.features.ids import UNKNOWN
from endcap.features.items import NAMED, price_of, texts_of
from endcap.features.words import words_of
from endcap.index.lexical import LexicalIndex
from endcap.recommend.arrivals import WideVectors, WideWords
from endcap.recommend.kin import NOBODY, Kin, through_kin
from endcap.recommend.search import Searcher

LOG = logging.getLogger(__name__)
ROOM = 1024  # rows for new items at first; doubled when they are used up
READ_AT_ONCE = 16  # new items whose kin is looked for before the next answer; that of further ones is found beside it


class LiveCatalogue:
    """release: what answers. `apply` may replace it by one with more room. Callers take turns."""

    def __init__(self, release: Release) -> None:
        self.release, self._loaded = release, release
        self._room = ROOM
        self._kin: Kin | None = None
        self._vectors: WideVectors | None = None
        self._relating = Lock()
        self._words = WideWords(_words(release.searcher))
        self._fields = release.manifest.config.get("content", {}).get("reads", NAMED)

    @property
    def since(self) -> int:
        """The version of the catalogue that the release was made of; 0 where it does not say."""
        return int(self._loaded.manifest.data.get("items_version", 0))

    def apply(self, items: Sequence[Item]) -> None:
        """Take over items as they are now. New ones that may not be shown wait until they may."""
        ids = self.release.fitted.table.ids
        known = [item for item in items if ids.position(item.item_id) != UNKNOWN]
        new = [item for item in items if ids.position(item.item_id) == UNKNOWN and item.availability.shown]
        self._change(known)
        if not new:
            return
        if self._kin is None or len(ids) + len(new) > len(self._kin.like):
            self._widen(len(new))
        places = [self._put(item) for item in new]
        self._relate(new[:READ_AT_ONCE], places[:READ_AT_ONCE])
        if len(new) > READ_AT_ONCE:
            rest = (new[READ_AT_ONCE:], places[READ_AT_ONCE:])
            Thread(target=self._relate_parts, args=rest, name="endcap-kin", daemon=True).start()

    def _change(self, items: Sequence[Item]) -> None:
        """Of a whole catalogue that comes again with other prices only these are touched."""
        if not items:
            return
        release, table = self.release, self.release.fitted.table
        places = table.ids.positions(item.item_id for item in items)
        release.eligible.shown[places] = [item.availability.shown for item in items]
        for item in table.renamed(items):
            self._put(item)
        for place, item in zip(places.tolist(), items, strict=True):
            if place in table.changed:  # what is put again where there is more room is what it is now
                table.changed[place] = item
        table.price[places] = [price_of(item) for item in items]
        release.pipeline.hydrator.reprice(places.astype(np.int64))

    def _put(self, item: Item) -> int:
        release = self.release
        place = release.fitted.table.put(item)
        text = texts_of([item])[0] if release.pipeline.second_look is not None else ""
        release.pipeline.put(place, item.title or item.item_id, text)
        release.eligible.shown[place] = item.availability.shown
        return place

    def _widen(self, needed: int) -> None:
        """Another release with more rows, into which what changed so far is put again."""
        changed, before = dict(self.release.fitted.table.changed), self._kin
        while self._room < needed + len(changed):
            self._room *= 2
        loaded, known = self._loaded, len(self._loaded.eligible.shown)
        kin = Kin(known, self._room)
        table = loaded.fitted.table.widened(self._room)
        table.price[:known] = self.release.fitted.table.price[:known]
        fitted = replace(
            loaded.fitted,
            table=table,
            stats=loaded.fitted.stats.widened(self._room),
            sources=through_kin(loaded.fitted.sources, kin),
        )
        shown = np.append(self.release.eligible.shown[:known], np.zeros(self._room, np.bool_))
        pipeline, eligible = build_pipeline(fitted, loaded.fusion, loaded.pipeline.per_source, shown, loaded.slate)
        with self._relating:
            vectors = self._wide_vectors(known)
            if before is not None:
                kin.take_over(before)
            self._kin, self._vectors, self._room = kin, vectors, self._room * 2
        searcher = loaded.searcher.widened(pipeline.filters, personal(fitted, loaded.fusion), vectors, self._words)
        wide = replace(loaded, fitted=fitted, pipeline=pipeline, searcher=searcher, eligible=eligible)
        self.release = wide
        for item in changed.values():
            self._put(item)

    def _wide_vectors(self, known: int) -> WideVectors | None:
        index, encoder = self._loaded.searcher.vectors, self._loaded.searcher.encoder
        if index is None or encoder is None:
            return None
        wide = WideVectors(index, known, encoder.dim, self._room)
        if self._vectors is not None:
            wide.take_over(self._vectors)
        return wide

    def _relate_parts(self, items: list[Item], places: list[int]) -> None:
        for start in range(0, len(items), READ_AT_ONCE):
            part = slice(start, start + READ_AT_ONCE)
            self._relate(items[part], places[part])

    def _relate(self, items: Sequence[Item], places: Sequence[int]) -> None:
        """Find who stands for each new item, and let search know of it."""
        texts = texts_of(items, self._fields)
        vectors = self._read(texts)
        for row, (place, text) in enumerate(zip(places, texts, strict=True)):
            vector = None if vectors is None or not vectors[row].any() else vectors[row]
            like, near = self._most_said(text) if vector is None else self._loaded.searcher.nearest(vector)
            with self._relating:
                assert self._kin is not None
                if vector is not None and self._vectors is not None:
                    self._vectors.put(place, vector)
                self._words.put(place, text)
                self._kin.put(place, like, near)

    def _read(self, texts: Sequence[str]) -> Float32Array | None:
        encoder = self._loaded.searcher.encoder
        if encoder is None or self._vectors is None:
            return None
        try:
            return encoder.encode(texts)
        except Exception:  # a new item that is known by its words alone beats one that is not known
            LOG.warning("New items are known by their words alone.", exc_info=True)
            return None

    def _most_said(self, text: str) -> tuple[int, float]:
        """The known item that holds most of what the words tell, and how much of it."""
        words, index = words_of(text), _words(self._loaded.searcher)
        items, _ = index.best(words, 1, least=0.0)
        return (int(items[0]), float(index.told(words)[items[0]])) if len(items) else (NOBODY, 0.0)


def _words(searcher: Searcher) -> LexicalIndex:
    assert isinstance(searcher.words, LexicalIndex)
    return searcher.words
