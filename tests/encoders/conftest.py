"""Pictures to encode, drawn here, and the folders of real ones and of speech."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """A data set's folder below ENDCAP_DATA; the test is skipped where there is none."""

    def folder(name: str) -> Path:
        if not (root := os.environ.get("ENDCAP_DATA")):
            pytest.skip(f"reads {name} below ENDCAP_DATA, which is not set")
        if not (path := Path(root) / name).is_dir():
            pytest.skip(f"there is no {path}")
        return path

    return folder


def drawn(shape: str, colour: str, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A disc, a box or stripes on grey."""
    image = Image.new("RGB", size, "lightgrey")
    pen = ImageDraw.Draw(image)
    width, height = size
    if shape == "disc":
        pen.ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=colour)
    elif shape == "box":
        pen.rectangle((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=colour)
    else:
        for left in range(0, width, 16):
            pen.rectangle((left, 0, left + 7, height), fill=colour)
    return image


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    return [stored(drawn(*what)) for what in (("disc", "red"), ("box", "blue"), ("stripes", "green"), ("disc", "blue"))]
