"""A file's bytes -> an upright picture of three colours, whatever a shop's photos are stored as.

Files come from strangers, so only the formats named here are tried, the size in pixels is read from the header before
anything is unpacked, and whatever a decoder raises means that the picture cannot be read.
"""

from __future__ import annotations

import io
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from endcap.core.errors import DataError, MissingExtraError
from endcap.encoders.media import Media, read_bounded

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_RATIO = 100  # models that scale the shorter side up would make an enormous picture of a strip
STRIP = 500_000  # pixels that are made RGB at a time
WIDE_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # 16 bits, which a plain conversion would cut off at 255


def picture(content: Media, place: str, *, max_bytes: int, max_pixels: int, unpacked: int | None = None) -> Image:
    """The first frame in RGB, turned as its EXIF orientation says, on white where it is transparent.

    place: for errors. unpacked: pixels that are held in memory, where that is fewer than `max_pixels`: a JPEG that has
    more is unpacked at a half, a quarter or an eighth of its width, and whatever cannot be is refused.

    Raises DataError if it cannot be read, is damaged, or has more bytes or pixels than is allowed; MissingExtraError
    without Pillow.
    """
    pillow = _pillow()
    from PIL import ImageOps, UnidentifiedImageError

    file = io.BytesIO(read_bounded(content, max_bytes, place))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked below, and of oddities that are read anyway
            opened = pillow.open(file, formats=FORMATS)
            _check_size(opened, max_pixels, place)
            if unpacked is not None:
                _shrink(opened, unpacked)
                _check_size(opened, unpacked, place)
            ImageOps.exif_transpose(opened, in_place=True)
            return _flat(opened)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"It is no picture of a kind that is read ({', '.join(FORMATS)}).",
            where=place,
            next_step="Convert it, or leave it out.",
        ) from error
    except Exception as error:  # decoders raise whatever a damaged file leads them into
        raise DataError(
            f"The picture cannot be read: {str(error).strip() or type(error).__name__}.",
            where=place,
            next_step="Store it anew, or leave it out.",
        ) from error


def blank() -> Image:
    """A small white picture, to try a network with. Raises MissingExtraError without Pillow."""
    white: Image = _pillow().new("RGB", (64, 64), "white")
    return white


def _shrink(opened: Image, pixels: int) -> None:
    """To about so many pixels at most when it is unpacked, where its format can be: a JPEG, but one that is progressive
    would be held in full before it is made smaller."""
    if opened.info.get("progressive"):
        return
    part = next((part for part in (1, 2, 4) if opened.width * opened.height <= pixels * part**2), 8)
    opened.draft(None, (opened.width // part, opened.height // part))


def _check_size(image: Image, max_pixels: int, place: str) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(
            f"The picture has {width} x {height} pixels, more than the {max_pixels:,} that are unpacked.",
            where=place,
            next_step="Make it smaller, or raise `max_pixels`.",
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(
            f"The picture has {width} x {height} pixels; such a strip shows nothing.",
            where=place,
            next_step=f"Cut it so that one side is at most {MAX_RATIO} times the other.",
        )


def _flat(image: Image) -> Image:
    """RGB on white, made in strips, so that only the two pictures are held in full."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    flat: Image = _pillow().new("RGB", image.size)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        flat.paste(_on_white(image.crop(box)), box)
    return flat


def _on_white(image: Image) -> Image:
    """RGB."""
    pillow = _pillow()
    if image.mode in WIDE_GREY:
        grey = np.asarray(image).astype(np.float64) / 257
        image = pillow.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    white = pillow.new("RGBA", layers.size, "white")
    flat: Image = pillow.alpha_composite(white, layers).convert("RGB")
    return flat


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "image") from error
    return Image
