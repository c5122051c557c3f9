"""Texts -> unit vectors where nothing but onnxruntime and tokenizers is at hand: what a server encodes queries with.

    model.onnx        tokens, mask int64 [b, t] -> vectors float32 [b, d] of unit length
    tokenizer.json    as the tokenizers library reads it
    onnx.json         how texts are read, how near its vectors are to torch's, and both files' checksums

The folder is written by `encoders.onnx_export`. This module imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from endcap.core.errors import ArtifactError, MissingExtraError
from endcap.core.protocols import Encoder
from endcap.core.types import Float32Array
from endcap.encoders.batches import halving
from endcap.encoders.lengths import Prefixed, Tokens, encode_by_length, padded
from endcap.encoders.onnx_files import read, session

MODEL, TOKENISER, SETTINGS = "model.onnx", "tokenizer.json", "onnx.json"
FILES = (MODEL, TOKENISER)
BATCH = 16  # what a core's cache holds
AGAIN = "Export the model again: endcap.encoders.onnx_export.export_text"


class OnnxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`onnx.json`. name: of the model. padding: the token that fills up short rows. closing: the token that is put
    behind every text, if any. overlap: the share of each text's ten nearest neighbours that torch finds in float32.
    sample: a digest of the texts that this was measured on. sha256: of the other files, by name.
    """

    format: Literal[1] = 1
    name: str
    dim: int
    precision: Literal["int8", "float32"]
    query_prefix: str
    passage_prefix: str
    max_length: int
    padding: int
    closing: int | None
    overlap: float
    sample: str = ""
    sha256: dict[str, str]


class OnnxTextEncoder:
    """A text encoder out of an exported folder. `name` names all that its vectors depend on."""

    def __init__(
        self,
        folder: Path,
        threads: int = 1,
        *,
        progress: Callable[[int, int], None] | None = None,
        noted: Callable[[str], None] | None = None,
    ) -> None:
        """threads: that a product may use. progress: called with (texts done, texts in all) after each batch. noted:
        with a sentence, should a batch be too big for memory.

        Raises ArtifactError if a file is missing or not the one that was written, MissingExtraError without tokenizers.
        """
        self.progress, self.noted = progress, noted
        self.settings, contents, digest = read(folder, SETTINGS, OnnxSettings, FILES, AGAIN)
        self.dim = self.settings.dim
        self._digest = digest
        self._tokeniser = _tokeniser(contents[TOKENISER], self.settings, folder)
        self._session = session(contents[MODEL], threads, folder / MODEL, AGAIN)
        self.name = self.name_with(self.settings.passage_prefix)

    def encode(self, contents: Sequence[str]) -> Float32Array:
        """float32 [len(contents), dim], rows of unit length; all zero for a text of nothing but white space."""
        return self.encode_with(self.settings.passage_prefix, contents)

    def queries(self) -> Encoder[str]:
        """The same weights, reading texts as what is searched with."""
        return Prefixed(self, self.settings.query_prefix)

    def encode_with(self, prefix: str, contents: Sequence[str]) -> Float32Array:
        """`encode`, with other words before each text."""
        return encode_by_length(
            contents,
            dim=self.dim,
            batch_size=BATCH,
            tokenise=lambda texts: self._tokens([prefix + text for text in texts]),
            forward=lambda rows: halving(self._run, rows, self.noted),
            progress=self.progress,
        )

    def name_with(self, prefix: str) -> str:
        return f"{self.settings.name}:{self._digest}:onnx" + (f":{prefix}" if prefix else "")

    def _tokens(self, texts: list[str]) -> list[Tokens]:
        rows = [encoding.ids for encoding in self._tokeniser.encode_batch_fast(texts)]
        return rows if self.settings.closing is None else [[*row, self.settings.closing] for row in rows]

    def _run(self, rows: Sequence[Tokens]) -> Float32Array:
        tokens, mask = padded(rows, self.settings.padding)
        vectors: Float32Array = self._session.run(None, {"tokens": tokens, "mask": mask})[0]
        return vectors


def _tokeniser(content: bytes, settings: OnnxSettings, folder: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", "text") from error
    try:
        tokeniser = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises no narrower one
        raise ArtifactError(f"{error}.", where=str(folder / TOKENISER), next_step=AGAIN) from error
    tokeniser.no_padding()
    tokeniser.enable_truncation(settings.max_length - (settings.closing is not None))
    return tokeniser
