"""Search in a release: what training puts there, and what answers from it.

<release>/search/
  words/      which items' texts hold which words
  vectors/    vectors of the items' words, in the text encoder's own space
  encoder/    the text encoder as ONNX, so that queries are read without torch
  pictures/, described/, eye/    see `app.sights`

Without vectors, or where the encoder cannot be exported, words alone are searched.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from endcap.app.config import Config
from endcap.app.content import Content
from endcap.app.fusion import Fusion
from endcap.app.lazy import LazyEncoder
from endcap.app.sights import EYE, read_sights, write_sights
from endcap.app.sources import Fitted
from endcap.core.errors import CallerError, DataError, EndcapError, ServiceError
from endcap.core.protocols import Filter
from endcap.encoders.onnx import OnnxTextEncoder
from endcap.encoders.onnx_image import limit
from endcap.encoders.speech import Speech, SpeechConfig, Transcript
from endcap.features.items import ItemTable
from endcap.features.words import words_of
from endcap.index.build import build_index, open_index, save_index
from endcap.index.exact import ExactIndex
from endcap.index.kinds import load_kinds, save_kinds
from endcap.index.lexical import LexicalIndex
from endcap.recommend.search import Personal, Searcher, by_sources

FOLDER, WORDS, VECTORS, NEAR, ENCODER = "search", "words", "vectors", "near", "encoder"
LONGEST = 60.0  # seconds of a clip that is searched for
FEWEST_TEXTS = 50  # with fewer, nobody can say whether an export is near enough


class Ear:
    """Writes down what is said, by a model that is loaded when the first clip comes, one clip after the other."""

    def __init__(self, config: SpeechConfig) -> None:
        self._config, self._lock = config.model_copy(update={"max_seconds": min(LONGEST, config.max_seconds)}), Lock()
        self._speech: Speech | ServiceError | None = None

    def transcribe(self, clip: bytes) -> Transcript:
        """MissingExtraError without the extra `speech`, DataError where nobody speaks or the clip is longer than a
        minute, ServiceError, every time, where the settings name no model that can listen."""
        with self._lock:
            if self._speech is None:
                self._speech = self._opened()
            if isinstance(self._speech, ServiceError):
                raise self._speech
            try:
                return self._speech.transcribe(clip)
            except DataError as error:
                step = f"Send a clip of up to {LONGEST:g} seconds in which somebody speaks."
                raise DataError(error.what, where="clip", next_step=step) from error

    def _opened(self) -> Speech | ServiceError:
        try:
            return Speech(self._config)
        except CallerError as error:  # whoever asks did nothing wrong
            return ServiceError(f"Nothing can be heard: {error}", where="[speech]", next_step="Mend `endcap.toml`.")


def write_search(folder: Path, table: ItemTable, content: Content | None, config: Config) -> list[str]:
    """Into an existing folder. Returns notes on what cannot be searched by."""
    (folder / WORDS).mkdir()
    LexicalIndex.of([words_of(text) for text in table.texts(config.content.reads)]).save(folder / WORDS)
    if content is None:
        return []
    notes = [_write_meanings(folder, table, content, config), write_sights(folder, content, config)]
    if (folder / EYE).is_dir():  # as exported, once for all shops, it has the limits of whichever came first
        limit(folder / EYE, max_bytes=config.image.max_bytes, max_pixels=config.image.max_pixels)
    return [note for note in notes if note]


def _write_meanings(folder: Path, table: ItemTable, content: Content, config: Config) -> str:
    """Vectors of the items' words, and what reads queries. A note where words alone can be searched."""
    vectors = content.known.modalities.get("text")
    if vectors is None:
        return ""
    (folder / VECTORS).mkdir()
    said = table.texts(config.content.reads)
    places = {text: place for place, text in enumerate(dict.fromkeys(said))}
    kind_of = np.fromiter((places[text] for text in said), np.int32, len(said))
    _, firsts = np.unique(kind_of, return_index=True)
    kinds = np.ascontiguousarray(vectors[firsts], np.float32)
    save_kinds(ExactIndex(kinds), kind_of, folder / VECTORS)
    save_index(build_index(kinds, config.index, len(said)), folder / VECTORS / NEAR)
    texts = [text for text in places if text]
    if len(texts) < FEWEST_TEXTS:
        return f"Search goes by words alone: fewer than {FEWEST_TEXTS} texts are too few to check an encoder by."
    try:
        from endcap.encoders.onnx_export import exported_text
        from endcap.encoders.text import TextEncoder

        shutil.copytree(exported_text(TextEncoder(config.text), texts), folder / ENCODER)
    except EndcapError as error:
        return f"Search goes by words alone: {error}"
    return ""


def read_search(release: Path, fitted: Fitted, fusion: Fusion, filters: Sequence[Filter]) -> Searcher:
    """Imports neither torch nor transformers."""
    place, encoder, vectors = release / FOLDER, None, None
    if (place / ENCODER).is_dir():
        vectors = load_kinds(place / VECTORS, lambda kinds: open_index(kinds, place / VECTORS / NEAR))
        encoder = LazyEncoder(place / ENCODER, vectors.dim, lambda folder: OnnxTextEncoder(folder).queries())
    if place.is_dir():
        words = LexicalIndex.load(place / WORDS)
    else:  # of a release that was written before there was search
        words = LexicalIndex.of([words_of(text) for text in fitted.table.texts()])
    return Searcher(
        encoder=encoder,
        vectors=vectors,
        words=words,
        filters=filters,
        personal=personal(fitted, fusion),
        sights=read_sights(release, place, fitted.table),
    )


def personal(fitted: Fitted, fusion: Fusion) -> Personal:
    """The blend that shortens the candidates, or every source alike where there is none."""
    known = fusion.shortlist.weights if fusion.shortlist is not None else {}
    return by_sources(fitted.sources, [known.get(source.name, 0.0 if known else 1.0) for source in fitted.sources])
