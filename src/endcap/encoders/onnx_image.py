"""Pictures -> unit vectors where nothing but onnxruntime and Pillow is at hand: what a server looks at pictures with.

    model.onnx     pixels float32 [b, 3, h, w] -> vectors float32 [b, d], of any length
    image.json     how a picture is prepared, how near its vectors are to torch's, and the file's checksum

The folder is written by `encoders.onnx_image_export`. This module imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from endcap.core.types import Float32Array
from endcap.encoders.align import unit
from endcap.encoders.media import Media, place_of
from endcap.encoders.onnx_files import read, session
from endcap.encoders.pictures import picture
from endcap.encoders.preparing import Preparation

MODEL, SETTINGS = "model.onnx", "image.json"
FILES = (MODEL,)
AGAIN = "Export the model again: endcap.encoders.onnx_image_export.export_image"


class ImageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`image.json`. name: of the model. overlap: the share of each picture's nearest neighbours that torch finds too.
    alike: the least cosine of a picture's two vectors. max_bytes, max_pixels: larger files and pictures are refused.
    sha256: of the other files, by name.
    """

    format: Literal[1] = 1
    name: str
    dim: int
    preparation: Preparation
    overlap: float
    alike: float
    max_bytes: int
    max_pixels: int
    sha256: dict[str, str]


def limit(folder: Path, *, max_bytes: int, max_pixels: int) -> None:
    """Let the encoder of a folder refuse larger files and pictures than these, whatever it was exported with."""
    settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=ImageSettings)
    limited = msgspec.structs.replace(settings, max_bytes=max_bytes, max_pixels=max_pixels)
    (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(limited), indent=1))


class OnnxImageEncoder:
    """An image encoder out of an exported folder. `name` names all that its vectors depend on."""

    def __init__(self, folder: Path, threads: int = 1, *, unpacked: int | None = None) -> None:
        """threads: that a convolution may use. unpacked: pixels that are held in memory, see `pictures.picture`.

        Raises ArtifactError if a file is missing or not the one that was written.
        """
        self._unpacked = unpacked
        self.settings, contents, digest = read(folder, SETTINGS, ImageSettings, FILES, AGAIN)
        self.dim = self.settings.dim
        self.name = f"{self.settings.name}:{digest}:onnx"
        self._session = session(contents[MODEL], threads, folder / MODEL, AGAIN)

    def encode(self, contents: Sequence[Media]) -> Float32Array:
        """float32 [len(contents), dim], rows of unit length; all zero for empty bytes.

        Raises DataError for a picture that cannot be read, is damaged or too large; MissingExtraError without Pillow.
        """
        vectors = np.zeros((len(contents), self.dim), np.float32)
        limits = {"max_bytes": self.settings.max_bytes, "max_pixels": self.settings.max_pixels}
        for place, content in enumerate(contents):
            if content != b"":
                image = picture(content, place_of(content, place), **limits, unpacked=self._unpacked)
                pixels = self.settings.preparation(image)
                vectors[place] = self._session.run(None, {"pixels": pixels[None]})[0][0]
        return unit(vectors)
