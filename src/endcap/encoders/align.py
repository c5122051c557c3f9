"""Pictures in the space of a text encoder, so that texts find pictures and pictures find texts. numpy only.

Legend: n pictures, m texts, k descriptions learned from, i the image encoder's width, t the text encoder's.

    folder/
      alignment.json    temperature, discount, how it was fitted
      weights.npy       float32 [i, t]
      bias.npy          float32 [t]
      learned.npy       float32 [k, t]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from endcap.core.errors import ArtifactError, CallerError
from endcap.core.types import Float32Array

SETTINGS = "alignment.json"
ARRAYS = ("weights", "bias", "learned")
SMALLEST = 1e-12
SCORES_AT_ONCE = 8_000_000


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
        shares: Float32Array = (texts @ projected.T - self.drawn(projected, texts)) / np.float32(
            self.settings.temperature
        )
        return shares

    def drawn(self, projected: Float32Array, texts: Float32Array) -> Float32Array:
        """float32 [n]: how near each picture is to texts in general. A text's cosine less this, over the temperature,
        is the logarithm of the share that it takes of the picture, up to what is the same for all pictures where it is
        not among the texts itself."""
        temperature, parts = np.float32(self.settings.temperature), []
        for rows in _pieces(projected, len(texts)):
            logits = rows @ texts.T / temperature
            highest = logits.max(axis=1, keepdims=True)
            parts.append(highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1)))
        drawn: Float32Array = np.concatenate(parts) * temperature
        return drawn

    def familiarity(self, texts: Float32Array) -> Float32Array:
        """float32 [m]: the cosine of each text with the nearest of `learned`, at least 0."""
        if not len(self.learned):
            return np.zeros(len(texts), np.float32)
        pieces = [(rows @ self.learned.T).max(axis=1) for rows in _pieces(texts, len(self.learned))]
        nearest: Float32Array = np.concatenate(pieces)
        return np.maximum(nearest, np.float32(0))

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


def _pieces(rows: Float32Array, columns: int) -> Iterator[Float32Array]:
    """In order, so that a piece against so many columns is of bounded size; at least one, which may be empty."""
    size = max(1, SCORES_AT_ONCE // max(1, columns))
    yield from (rows[start : start + size] for start in range(0, max(1, len(rows)), size))


def unit(rows: Float32Array) -> Float32Array:
    """Each row scaled to unit length; zero stays zero."""
    scaled: Float32Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(SMALLEST))
    return scaled
