"""A picture -> the numbers a network was trained to see, said in a few settings, so that whoever serves it needs
neither torch nor the library it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from endcap.core.types import Float32Array

if TYPE_CHECKING:
    from PIL.Image import Image

Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
RESAMPLINGS: tuple[Resampling, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's order


class Preparation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """height, width: of what the network sees. Before that, one of
        middle   the square in the middle, of this share of the shorter side, is scaled to it
        shorter  the whole is scaled until its shorter side has so many pixels, and the middle cut out
        neither  the whole is scaled to it, its proportions lost
    Then a value, from 0 to 255, becomes (value * scale - mean) / spread, by colour.
    """

    height: int
    width: int
    middle: float | None = None
    shorter: int | None = None
    resampling: Resampling = "bicubic"
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, image: Image) -> Float32Array:
        """float32 [3, height, width] of an RGB picture."""
        seen = np.asarray(self._seen(image), np.float32) * np.float32(self.scale)
        pixels = (seen - np.array(self.mean, np.float32)) / np.array(self.spread, np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _seen(self, image: Image) -> Image:
        how: Any = RESAMPLINGS.index(self.resampling)
        if self.middle is not None:
            side = min(image.size) * self.middle
            left, top = (image.width - side) / 2, (image.height - side) / 2
            return image.resize((self.width, self.height), how, box=(left, top, left + side, top + side))
        if self.shorter is None:
            return image.resize((self.width, self.height), how)
        share = self.shorter / min(image.size)
        width, height = (max(self.shorter, int(share * length)) for length in image.size)
        left, top = (width - self.width) // 2, (height - self.height) // 2
        return image.resize((width, height), how).crop((left, top, left + self.width, top + self.height))


def preparation_of(processor: Any) -> Preparation | None:
    """What an image processor of transformers does; None where these settings cannot say it."""
    size, crop = _sizes(processor, "size"), _sizes(processor, "crop_size")
    cuts = bool(getattr(processor, "do_center_crop", False))
    shorter = size.get("shortest_edge")
    seen = crop if cuts else size
    if not getattr(processor, "do_resize", False) or "height" not in seen or (cuts and shorter is None):
        return None
    if shorter is not None and (not cuts or shorter < max(seen["height"], seen["width"])):
        return None  # what is missing at the edges would have to be filled up
    normal = bool(getattr(processor, "do_normalize", False))
    return Preparation(
        height=seen["height"],
        width=seen["width"],
        shorter=shorter,
        resampling=RESAMPLINGS[int(processor.resample)],
        scale=float(processor.rescale_factor) if getattr(processor, "do_rescale", False) else 1.0,
        mean=_colours(processor.image_mean) if normal else (0.0, 0.0, 0.0),
        spread=_colours(processor.image_std) if normal else (1.0, 1.0, 1.0),
    )


def _sizes(processor: Any, name: str) -> dict[str, int]:
    given = getattr(processor, name, None)
    if given is None:
        return {}
    names = ("height", "width", "shortest_edge", "longest_edge")
    values = {key: given.get(key) if isinstance(given, dict) else getattr(given, key, None) for key in names}
    return {key: int(value) for key, value in values.items() if value is not None}


def _colours(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
