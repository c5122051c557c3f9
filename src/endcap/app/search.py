"""Search in a release: what training puts there, and what answers from it.

<release>/search/
  words/      which items' texts hold which words
  vectors/    the content vectors whole, in the encoder's own space
  encoder/    the text encoder as ONNX, so that queries are read without torch

Without content vectors, or where the encoder cannot be exported, words alone are searched.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from endcap.app.config import Config
from endcap.app.fusion import Fusion
from endcap.app.sources import Fitted
from endcap.core.errors import EndcapError
from endcap.core.protocols import Encoder, Filter
from endcap.core.types import Float32Array
from endcap.encoders.onnx import OnnxTextEncoder
from endcap.encoders.packaged import models_folder
from endcap.encoders.speech import Speech, SpeechConfig, Transcript
from endcap.features.items import ItemTable
from endcap.features.words import words_of
from endcap.index.exact import ExactIndex
from endcap.index.lexical import LexicalIndex
from endcap.recommend.search import Personal, Searcher, by_sources

FOLDER, WORDS, VECTORS, ENCODER = "search", "words", "vectors", "encoder"
FEWEST_TEXTS = 50  # with fewer, nobody can say whether an export is near enough


class QueryEncoder:
    """Reads queries by a release's ONNX encoder, which is loaded when the first query comes."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.name, self.dim = f"onnx:{folder.parent.parent.name}", dim
        self._folder, self._lock = folder, Lock()
        self._encoder: Encoder[str] | None = None

    def encode(self, contents: Sequence[str]) -> Float32Array:
        with self._lock:
            if self._encoder is None:
                self._encoder = OnnxTextEncoder(self._folder).queries()
            return self._encoder.encode(contents)


class Ear:
    """Writes down what is said, by a model that is loaded when the first clip comes, one clip after the other."""

    def __init__(self, config: SpeechConfig) -> None:
        self._config, self._lock = config, Lock()
        self._speech: Speech | None = None

    def transcribe(self, clip: bytes) -> Transcript:
        """Raises what `Speech` raises: MissingExtraError without the extra `speech`, DataError where nobody speaks."""
        with self._lock:
            if self._speech is None:
                self._speech = Speech(self._config)
            return self._speech.transcribe(clip)


def write_search(folder: Path, table: ItemTable, content: Float32Array | None, config: Config) -> str:
    """Into an existing folder. content: float32 [items, d], or None. Returns a note where words alone can be searched,
    empty where all is well."""
    for part in (WORDS, VECTORS):
        (folder / part).mkdir()
    LexicalIndex.of([words_of(text) for text in table.texts()]).save(folder / WORDS)
    if content is None:
        return ""
    ExactIndex(np.ascontiguousarray(content, np.float32)).save(folder / VECTORS)
    texts = [text for text in dict.fromkeys(table.texts()) if text]
    if len(texts) < FEWEST_TEXTS:
        return f"Search goes by words alone: fewer than {FEWEST_TEXTS} texts are too few to check an encoder by."
    try:
        shutil.copytree(_exported(texts, config), folder / ENCODER)
    except EndcapError as error:
        return f"Search goes by words alone: {error}"
    return ""


def read_search(folder: Path, fitted: Fitted, fusion: Fusion, filters: Sequence[Filter]) -> Searcher:
    """folder: of the release. Imports neither torch nor transformers."""
    place = folder / FOLDER
    if not place.is_dir():  # of a release that was written before there was search
        words = LexicalIndex.of([words_of(text) for text in fitted.table.texts()])
        return Searcher(encoder=None, vectors=None, words=words, filters=filters, personal=_personal(fitted, fusion))
    encoder, vectors = None, None
    if (place / ENCODER).is_dir():
        vectors = ExactIndex.load(place / VECTORS)
        encoder = QueryEncoder(place / ENCODER, vectors.dim)
    return Searcher(
        encoder=encoder,
        vectors=vectors,
        words=LexicalIndex.load(place / WORDS),
        filters=filters,
        personal=_personal(fitted, fusion),
    )


def _personal(fitted: Fitted, fusion: Fusion) -> Personal:
    """The blend that shortens the candidates, or every source alike where there is none."""
    known = fusion.shortlist.weights if fusion.shortlist is not None else {}
    return by_sources(fitted.sources, [known.get(source.name, 0.0 if known else 1.0) for source in fitted.sources])


def _exported(texts: Sequence[str], config: Config) -> Path:
    """The folder of the encoder's ONNX form, exported once for all shops of this user."""
    from endcap.encoders.onnx_export import export_text
    from endcap.encoders.text import TextEncoder

    encoder = TextEncoder(config.text)
    digest = hashlib.blake2b(f"{encoder.name} {encoder.queries().name}".encode(), digest_size=8).hexdigest()
    folder = models_folder() / "onnx" / digest
    if not (folder / "onnx.json").is_file():
        export_text(encoder, folder, texts=texts, quantise="auto")
    return folder
