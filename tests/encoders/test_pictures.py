"""Pictures as shops store them, and as strangers send them."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from endcap.core.errors import DataError
from endcap.encoders.pictures import picture

LIMITS = {"max_bytes": 100_000, "max_pixels": 1_000_000}


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(content: bytes | Path) -> np.ndarray:
    return np.asarray(picture(content, "here", **LIMITS))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_every_pixel_is_kept(kind: str) -> None:
    image = noise(9, 7)
    content = stored(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(read(content), np.asarray(image))


def test_bytes_and_their_path_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content := stored(noise(20, 10), "JPEG"))
    np.testing.assert_array_equal(read(path), read(content))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (200, 10, 10, 255))
    image.putpixel((1, 2), (0, 0, 0, 0))
    image.putpixel((3, 0), (0, 0, 0, 128))
    found = read(stored(image.convert(mode)))
    assert found[2, 1].tolist() == [255, 255, 255]
    assert found[0, 3].tolist() == pytest.approx([127, 127, 127], abs=1)


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert read(stored(image, "PNG", transparency=0))[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_grey_is_three_equal_colours() -> None:
    assert read(stored(Image.new("L", (3, 3), 90))).tolist() == [[[90] * 3] * 3] * 3


def test_sixteen_bits_are_scaled_to_eight() -> None:
    image = Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16))
    assert read(stored(image))[0, :, 0].tolist() == [0, 128, 255]


def test_printers_colours_become_light() -> None:
    found = read(stored(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100))
    np.testing.assert_allclose(found, np.broadcast_to([255, 0, 0], found.shape), atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation: int) -> None:
    """As EXIF defines it: where the stored first row and first column are to be seen."""
    upright = np.asarray(noise(6, 4))
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = stored(Image.fromarray(np.ascontiguousarray(undo[orientation])), "PNG", exif=exif)
    np.testing.assert_array_equal(read(content), upright)


def test_of_an_animation_the_first_frame_is_seen() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read(content)[0, 0].tolist() == [255, 0, 0]


def header_of(width: int, height: int) -> bytes:
    """A PNG that says it is this large, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def gradient(width: int, height: int) -> Image.Image:
    across = np.linspace(0, 255, width)[None, :] * np.ones((height, 1))
    down = np.linspace(255, 0, height)[:, None] * np.ones((1, width))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


@pytest.mark.parametrize(("pixels", "width"), [(30_000, 200), (20_000, 100), (7_000, 50), (1_000, 25)])
def test_a_large_photo_is_unpacked_smaller_where_less_may_be_held(pixels: int, width: int) -> None:
    content = stored(gradient(200, 150), "JPEG", quality=95)
    seen = picture(content, "here", **LIMITS, unpacked=pixels)
    assert seen.width == width
    whole = picture(content, "here", **LIMITS).resize(seen.size, Image.Resampling.BOX)
    np.testing.assert_allclose(np.asarray(seen, int), np.asarray(whole, int), atol=8)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})])
def test_what_cannot_be_unpacked_smaller_is_refused(kind: str, options: dict[str, bool]) -> None:
    content = stored(gradient(200, 150), kind, **options)
    assert picture(content, "here", **LIMITS, unpacked=30_000).size == (200, 150)
    with pytest.raises(DataError, match="200 x 150 pixels, more than the 29,999"):
        picture(content, "here", **LIMITS, unpacked=29_999)


@pytest.mark.parametrize("kind", ["grey", "transparent"])
def test_little_more_than_the_picture_is_held_in_memory(kind: str) -> None:
    """In a process of its own: 16 bits in grey, and colours with transparency, of nine million pixels."""
    drawn = (
        "Image.fromarray(np.full((3000, 3000), 9, np.uint16))" if kind == "grey" else "Image.new('RGBA', (3000, 3000))"
    )
    code = (
        "import io, resource, numpy as np\nfrom PIL import Image\nfrom endcap.encoders.pictures import picture\n"
        f"file = io.BytesIO()\n{drawn}.save(file, 'PNG')\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "picture(file.getvalue(), 'here', max_bytes=10**6, max_pixels=10**7)\n"
        "print((peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 90  # MB; both pictures in full and a strip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a picture", "no picture of a kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture of a kind"),
        (stored(noise(64, 64), "JPEG")[:-900], "truncated"),
        (stored(noise(64, 64))[:400], "cannot be read"),
        (stored(noise(64, 64), "WEBP")[:300], "cannot be read|no picture"),
        (header_of(30_000, 30_000), "30000 x 30000 pixels, more than the 1,000,000|cannot be read"),
        (header_of(1001, 1000), "1001 x 1000 pixels, more than the 1,000,000"),
        (header_of(5000, 20), "such a strip"),
        (b"\0" * 100_001, "longer than the 100,000 bytes"),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        picture(content, "shelf/photo 7", **LIMITS)
    assert caught.value.where == "shelf/photo 7"
    assert caught.value.next_step


def test_damage_anywhere_is_an_error_of_the_data_or_none() -> None:
    """A byte changed at each of many places: the decoder may see it or not, but nothing else escapes."""
    changes = np.random.default_rng(3)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        content = stored(noise(24, 16), kind)
        for _ in range(60):
            damaged = bytearray(content)
            damaged[changes.integers(len(content))] = changes.integers(256)
            with contextlib.suppress(DataError):
                assert read(bytes(damaged)).ndim == 3


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="directory"):
        read(tmp_path)
