"""Image encoders out of their exported files: what a server looks at pictures with."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.encoders.conftest import drawn, stored

from endcap.core.errors import ArtifactError, CallerError, DataError
from endcap.core.protocols import Encoder
from endcap.encoders.image import ImageEncoder, ImageEncoderConfig
from endcap.encoders.onnx_image import OnnxImageEncoder, limit
from endcap.encoders.onnx_image_export import export_image
from endcap.testing import EncoderConformance

VARIOUS = [
    stored(drawn(shape, colour, size))
    for shape in ("disc", "box", "stripes")
    for colour in ("red", "blue", "green", "black")
    for size in ((96, 80), (64, 150), (301, 133))
]


def encoder(model: str | Path, **settings: Any) -> ImageEncoder:
    return ImageEncoder(ImageEncoderConfig(model=str(model), **settings))


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageEncoder]:
    folder = tmp_path_factory.mktemp("exported") / "lite0"
    made = encoder("efficientnet-lite0", layers="all", precision="float32")
    report = export_image(made, folder, pictures=[*VARIOUS, b"no picture"])
    assert report.pictures == len(VARIOUS)
    assert report.overlap > 0.99
    assert report.bytes == sum(path.stat().st_size for path in folder.iterdir())
    return folder, made


class TestExportedConforms(EncoderConformance):
    empty = b""
    tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def _content(self, packaged: tuple[Path, ImageEncoder], pictures: list[bytes]) -> None:
        self._folder, self.contents = packaged[0], pictures

    def make(self) -> Encoder[Any]:
        return OnnxImageEncoder(self._folder)


def test_the_packaged_network_sees_what_torch_sees(packaged: tuple[Path, ImageEncoder], pictures: list[bytes]) -> None:
    folder, made = packaged
    np.testing.assert_allclose(OnnxImageEncoder(folder).encode(pictures), made.encode(pictures), atol=1e-4)
    assert json.loads((folder / "image.json").read_text())["alike"] > 0.999
    assert [path.name for path in folder.parent.iterdir()] == ["lite0"]


@pytest.mark.parametrize("family", ["clip", "siglip", "vit", "vit-bare", "dinov2", "convnext", "swin-bare"])
def test_families_of_hugging_face_are_served_without_it(family: str, seeing: Any, tmp_path: Path) -> None:
    made = encoder(seeing(family), precision="float32")
    export_image(made, tmp_path / "model", pictures=VARIOUS)
    np.testing.assert_allclose(OnnxImageEncoder(tmp_path / "model").encode(VARIOUS), made.encode(VARIOUS), atol=2e-3)


def test_a_preparation_that_is_not_known_is_refused(seeing: Any, tmp_path: Path) -> None:
    made = encoder(seeing("vit"))
    made.tower.preparation = None
    with pytest.raises(CallerError, match="How the model prepares a picture is not known"):
        export_image(made, tmp_path / "model", pictures=VARIOUS)


def test_a_preparation_that_is_wrong_is_caught_by_the_gate(seeing: Any, tmp_path: Path) -> None:
    made = encoder(seeing("vit"))
    upside_down = made.tower.preparation
    assert upside_down is not None
    made.tower.preparation = type(upside_down)(height=32, width=32, middle=0.3)
    with pytest.raises(ArtifactError, match=r"where 0\.95 is asked for"):
        export_image(made, tmp_path / "model", pictures=VARIOUS)
    assert list(tmp_path.iterdir()) == []


def test_wrong_input(packaged: tuple[Path, ImageEncoder], tmp_path: Path) -> None:
    folder, made = packaged
    with pytest.raises(CallerError, match="1 pictures are too few"):
        export_image(made, tmp_path / "model", pictures=[VARIOUS[0], b"no picture"])
    with pytest.raises(DataError, match="no picture of a kind that is read"):
        OnnxImageEncoder(folder).encode([b"no picture"])
    for name in ("image.json", "model.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="not the one that was written"):
        OnnxImageEncoder(tmp_path)


def test_limits_are_those_of_whoever_serves_it(packaged: tuple[Path, ImageEncoder], tmp_path: Path) -> None:
    folder = shutil.copytree(packaged[0], tmp_path / "eye")
    limit(folder, max_bytes=10_000, max_pixels=1000)
    with pytest.raises(DataError, match="96 x 80 pixels"):
        OnnxImageEncoder(folder).encode(VARIOUS[:1])
    limit(folder, max_bytes=10, max_pixels=1_000_000)
    with pytest.raises(DataError, match="longer than the 10 bytes"):
        OnnxImageEncoder(folder).encode(VARIOUS[:1])


def test_neither_torch_nor_transformers_is_loaded(packaged: tuple[Path, ImageEncoder]) -> None:
    code = (
        "import io, sys\nfrom PIL import Image\nfrom pathlib import Path\n"
        "from endcap.encoders.onnx_image import OnnxImageEncoder\nfile = io.BytesIO()\n"
        "Image.new('RGB', (50, 40), 'red').save(file, 'PNG')\n"
        f"vector = OnnxImageEncoder(Path({str(packaged[0])!r})).encode([file.getvalue()])[0]\n"
        "print(round(float(vector @ vector), 3), sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.0 []"
