"""Pictures in the space of a text encoder, so that texts find pictures and pictures find texts. numpy only.

Legend: n pictures, m texts, k descriptions learned from, i the image encoder's width, t the text encoder's.

    folder/
      alignment.json    temperature, discount, how it was fitted
      weights.npy       float32 [i, t]
      bias.npy          float32 [t]
      learned.npy       float32 [k, t]
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import numpy as np

from endcap.core.errors import ArtifactError, CallerError
from endcap.core.protocols import Encoder
from endcap.core.types import Float32Array

Content = TypeVar("Content")

SETTINGS = "alignment.json"
ARRAYS = ("weights", "bias", "learned")
SMALLEST = 1e-12


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """temperature: of the softmax over texts. discount: see `Alignment.texts_for`. fitted: by what, and how well."""

    temperature: float
    discount: float = 0.0
    fitted: dict[str, str | float] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """A linear projection. learned: where the photos that it was fitted on came to lie, a unit row a description."""

    weights: Float32Array
    bias: Float32Array
    learned: Float32Array
    settings: Settings = field(default_factory=lambda: Settings(0.1))

    def project(self, images: Float32Array) -> Float32Array:
        """float32 [n, i] of the image encoder -> float32 [n, t], rows of unit length; all zero where they were."""
        if images.ndim != 2 or images.shape[1] != len(self.weights):
            raise CallerError(
                f"The pictures' vectors have the shape {images.shape}, not (n, {len(self.weights)}).",
                where="alignment",
                next_step="Encode them with the encoder that the alignment was fitted for.",
            )
        projected = unit(images @ self.weights + self.bias)
        return np.where(images.any(axis=1, keepdims=True), projected, np.float32(0))

    def texts_for(self, projected: Float32Array, texts: Float32Array) -> Float32Array:
        """float32 [n, m]: how well each text fits each picture. projected: by `project`. texts: [m, t], unit rows.

        The cosine, less `discount` times how close photos that were learned from came to the text: pictures are drawn
        to the descriptions that were learned from, also those of new products, whose own texts would lose to them
        (Chao et al. 2016, calibrated stacking, with the distance in place of a list of what is known).
        """
        scores: Float32Array = projected @ texts.T
        return scores - np.float32(self.settings.discount) * self.familiarity(texts)

    def images_for(self, texts: Float32Array, projected: Float32Array) -> Float32Array:
        """float32 [m, n]: how well each picture fits each text, as the logarithm of the share that the text takes of
        the picture among all m texts; give all those of the catalogue. A picture that is near to everything comes
        after one that is near to this text alone (Smith et al. 2017, inverted softmax)."""
        logits = (projected @ texts.T) / np.float32(self.settings.temperature)  # [n, m]
        logits -= logits.max(axis=1, keepdims=True)
        shares: Float32Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return np.ascontiguousarray(shares.T)

    def familiarity(self, texts: Float32Array) -> Float32Array:
        """float32 [m]: the cosine of each text with the nearest of `learned`, at least 0."""
        if not len(self.learned):
            return np.zeros(len(texts), np.float32)
        nearest: Float32Array = (texts @ self.learned.T).max(axis=1)
        return np.maximum(nearest, np.float32(0))

    def digest(self) -> str:
        """12 hexadecimal digits of the projection."""
        digest = hashlib.blake2b(digest_size=6)
        for array in (self.weights, self.bias):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Into an existing folder."""
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(self.settings), indent=1))

    @staticmethod
    def load(folder: Path) -> Alignment:
        """Raises ArtifactError if a file is missing or damaged, or the shapes do not fit each other."""
        try:
            weights, bias, learned = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS)
            settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=Settings)
        except (OSError, ValueError, EOFError, msgspec.MsgspecError) as error:
            raise ArtifactError(
                f"The alignment cannot be read: {error}.", where=str(folder), next_step="Fit and save it again."
            ) from error
        if not (weights.ndim == learned.ndim == 2 and bias.shape == weights.shape[1:] == learned.shape[1:]):
            shapes = f"{weights.shape}, {bias.shape} and {learned.shape}"
            raise ArtifactError(
                f"The alignment's arrays have the shapes {shapes}.", where=str(folder), next_step="Fit it again."
            )
        return Alignment(weights, bias, learned, settings)


class AlignedEncoder(Generic[Content]):
    """An image encoder whose vectors are in the text encoder's space."""

    def __init__(self, encoder: Encoder[Content], alignment: Alignment) -> None:
        self._encoder, self._alignment = encoder, alignment
        self.name = f"{encoder.name}>{alignment.digest()}"
        self.dim = alignment.weights.shape[1]

    def encode(self, contents: Sequence[Content]) -> Float32Array:
        """float32 [len(contents), dim], rows of unit length; all zero where the image encoder's are."""
        return self._alignment.project(self._encoder.encode(contents))


def unit(rows: Float32Array) -> Float32Array:
    """Each row scaled to unit length; zero stays zero."""
    scaled: Float32Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(SMALLEST))
    return scaled
