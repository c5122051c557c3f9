"""Pictures -> unit vectors, by the packaged EfficientNet-Lite0 or any image model of Hugging Face.

The default's weights come as a Python package, so nothing is downloaded. torch, transformers and Pillow are imported
when an `ImageEncoder` is made, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from endcap.core.errors import CallerError, DataError
from endcap.core.protocols import Encoder
from endcap.core.section import Section
from endcap.core.types import Float32Array
from endcap.encoders.batches import in_batches
from endcap.encoders.image_towers import PACKAGED_MODEL, HubTower, Layers, PackagedTower, Tower
from endcap.encoders.media import Media, Refused, place_of
from endcap.encoders.pictures import blank, picture
from endcap.encoders.precision import Precision

SMALLEST = 1e-12


class ImageEncoderConfig(Section):
    """Which model looks at the pictures, and what pictures it takes."""

    model: str = Field(default=PACKAGED_MODEL, description="the packaged model, a local folder, or a Hugging Face name")
    layers: Layers = Field(
        default="last",
        description="of the packaged model: the last layer, 1280 wide; or all from the third stage on, 2024 wide, "
        "which tell colours and textures better and align with texts better",
    )
    batch_size: int = Field(default=8, ge=1, description="pictures in a forward pass; few fit a CPU's cache best")
    precision: Precision = Field(
        default="auto", description="auto: bfloat16 where the processor multiplies it natively, else float32"
    )
    max_bytes: int = Field(default=30_000_000, ge=1, description="longer files are refused")
    max_pixels: int = Field(
        default=50_000_000, ge=1, description="larger pictures are refused before they are unpacked"
    )


class ImageEncoder:
    """`name` names everything the vectors depend on: model, weights, how pictures are prepared, and precision."""

    def __init__(
        self,
        config: ImageEncoderConfig | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        refused: list[Refused] | None = None,
        noted: Callable[[str], None] | None = None,
    ) -> None:
        """progress: called with (pictures done, pictures in all) after each batch. refused: takes the pictures that
        cannot be read, whose rows are then all zero; without it the first of them is an error. noted: is told, in a
        sentence, where memory does not suffice for a batch.

        Raises MissingExtraError if a package is missing, ArtifactError if the packaged weights are not those expected,
        CallerError if the model cannot be found or loaded.
        """
        self.config = config or ImageEncoderConfig()
        self.progress, self.refused, self.noted = progress, refused, noted
        self.tower = _tower(self.config)
        self.name = self.tower.name
        self.dim = self._forward([self.tower.prepare(blank())]).shape[1]

    def encode(self, contents: Sequence[Media]) -> Float32Array:
        """float32 [len(contents), dim], rows of unit length; all zero for empty bytes and for what is refused.

        Raises DataError for a picture that cannot be read, is damaged or too large, naming its path or its place,
        unless `refused` collects them.
        """

        def run(places: Sequence[int]) -> tuple[list[int], Float32Array, list[Refused]]:
            return self._batch(contents, places)

        vectors = np.zeros((len(contents), self.dim), dtype=np.float32)
        filled = [place for place, content in enumerate(contents) if content != b""]
        done = len(contents) - len(filled)
        for places, (read, found, refused) in in_batches(run, filled, self.config.batch_size, self.noted):
            vectors[read] = found
            if self.refused is not None:
                self.refused.extend(refused)
            done += len(places)
            if self.progress is not None:
                self.progress(done, len(contents))
        return vectors

    def paired_text_encoder(self) -> Encoder[str]:
        """Texts in this encoder's own space, so that they find pictures without any projection.

        Raises CallerError unless the model is of CLIP's or SigLIP's kind.
        """
        from endcap.encoders.paired import PairedTexts

        if not isinstance(self.tower, HubTower) or not hasattr(self.tower.model, "get_text_features"):
            raise CallerError(
                f"The model {self.config.model!r} looks at pictures only.",
                where="image encoder",
                next_step="Fit an alignment to a text encoder (`fit_alignment`), or choose a CLIP or SigLIP model.",
            )
        return PairedTexts(self.tower.model, self.config.model, self.name)

    def _batch(self, contents: Sequence[Media], places: Sequence[int]) -> tuple[list[int], Float32Array, list[Refused]]:
        """The places of what could be read, its vectors, and what could not."""
        limits = {"max_bytes": self.config.max_bytes, "max_pixels": self.config.max_pixels}
        read, prepared, refused = list[int](), list[Float32Array](), list[Refused]()
        for place in places:
            try:
                image = picture(contents[place], place_of(contents[place], place), **limits)
                prepared.append(self.tower.prepare(image))
                read.append(place)
            except DataError as error:
                if self.refused is None:
                    raise
                refused.append(Refused(error.where, error.what))
        return read, self._forward(prepared), refused

    def _forward(self, prepared: list[Float32Array]) -> Float32Array:
        """Prepared pictures -> float32 [b, dim], rows of unit length."""
        if not prepared:
            return np.zeros((0, self.dim), np.float32)
        found = self.tower.forward(np.stack(prepared))
        unit: Float32Array = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), SMALLEST)
        return unit


def _tower(config: ImageEncoderConfig) -> Tower:
    if config.model == PACKAGED_MODEL:
        return PackagedTower(config.layers, config.precision)
    if config.layers != "last":
        raise CallerError(
            f"Only {PACKAGED_MODEL!r} gives all its layers.", where="layers", next_step="Leave `layers` out."
        )
    return HubTower(config.model, config.precision)
