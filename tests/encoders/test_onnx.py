import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from endcap.core.errors import ArtifactError, CallerError, ServiceError
from endcap.core.protocols import Encoder
from endcap.encoders.onnx import OnnxTextEncoder
from endcap.encoders.onnx_export import ExportReport, export_text, exported_text, overlap_at
from endcap.encoders.onnx_files import exported_once
from endcap.encoders.onnx_graph import graph_of
from endcap.encoders.text import TextEncoder, TextEncoderConfig
from endcap.testing import EncoderConformance

TEXTS = [" ".join(words) for n in (1, 2, 3) for words in product(("red", "green", "shoes", "boots", "milk"), repeat=n)]


def _encoder(folder: Path, **changes: object) -> TextEncoder:
    return TextEncoder(TextEncoderConfig.model_validate({"model": str(folder), "precision": "float32"} | changes))


@pytest.fixture(scope="module")
def bert(tiny: Path) -> TextEncoder:
    return _encoder(tiny, query_prefix="green ", passage_prefix="milk ", max_length=6)


@pytest.fixture(scope="module")
def exported(bert: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    folder = tmp_path_factory.mktemp("exported") / "bert"
    return folder, export_text(bert, folder, texts=TEXTS, min_overlap=0.8)


@pytest.fixture(scope="module")
def exported_gpt(tiny_gpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "gpt"
    export_text(_encoder(tiny_gpt), folder, texts=TEXTS, quantise=False, min_overlap=0.99)
    return folder


def test_the_export_is_measured_and_says_what_it_is(exported: tuple[Path, ExportReport]) -> None:
    folder, report = exported
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "onnx.json", "tokenizer.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["bert"]
    settings = json.loads((folder / "onnx.json").read_text())
    assert (report.precision, report.texts) == ("int8", len(TEXTS))
    assert 0.8 <= report.overlap == report.tried["int8"] <= 1
    assert (settings["precision"], settings["dim"], settings["max_length"]) == ("int8", 16, 6)
    assert settings["overlap"] == pytest.approx(report.overlap, abs=1e-4)
    assert report.bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_vectors_are_near_torchs_with_either_prefix(exported: tuple[Path, ExportReport], bert: TextEncoder) -> None:
    served = OnnxTextEncoder(exported[0])
    texts = ["red shoes", "", "boots", "  ", "red green shoes boots milk red green"]
    for theirs, ours in ((bert, served), (bert.queries(), served.queries())):
        expected, found = theirs.encode(texts), ours.encode(texts)
        assert ((expected * found).sum(1)[[0, 2, 4]] > 0.999).all()
        np.testing.assert_array_equal(found[[1, 3]], 0)
    assert served.name != served.queries().name


def test_many_are_answered_at_a_time(exported: tuple[Path, ExportReport]) -> None:
    served = OnnxTextEncoder(exported[0])
    asked = [TEXTS[start : start + 5] for start in range(0, len(TEXTS), 5)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(served.encode, asked))
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate([served.encode(texts) for texts in asked]))


def test_a_model_that_looks_back_is_exported_with_the_token_that_ends_its_texts(
    exported_gpt: Path, tiny_gpt: Path
) -> None:
    served = OnnxTextEncoder(exported_gpt)
    texts = ["red", "green shoes milk milk", "red " * 50]
    np.testing.assert_allclose(served.encode(texts), _encoder(tiny_gpt).encode(texts), atol=1e-5)


def test_what_is_not_near_enough_is_refused_and_nothing_is_left(bert: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"[01]\.\d+ in int8, and 1\.01 is asked for.*quantise=False"):
        export_text(bert, tmp_path / "bert", texts=TEXTS, min_overlap=1.01)
    assert list(tmp_path.iterdir()) == []


def test_of_the_packaged_model_int8_is_near_and_float32_is_there_for_those_who_ask_for_more(tmp_path: Path) -> None:
    titles = Path(os.environ.get("ENDCAP_DATA", "")) / "amazon-beauty" / "items.jsonl"
    if not titles.is_file():
        pytest.skip("ENDCAP_DATA names no folder that holds amazon-beauty/items.jsonl")
    with titles.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["title"] or "" for _, line in zip(range(200), lines, strict=False)]
    report = export_text(TextEncoder(), tmp_path / "minilm", texts=texts, min_overlap=0.995, quantise="auto")
    assert report.precision == "float32"
    assert 0.95 < report.tried["int8"] < 0.995 <= report.tried["float32"] == report.overlap


def test_too_few_texts_measure_nothing(bert: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="49 texts that differ"):
        export_text(bert, tmp_path / "bert", texts=[*TEXTS[:49], TEXTS[0], " "])
    assert list(tmp_path.iterdir()) == []


class Wayward(torch.nn.Module):
    """What it does depends on the numbers it is given."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers if numbers.sum() > 0 else -numbers


def test_a_model_that_the_exporter_cannot_follow_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be written as ONNX"):
        graph_of(Wayward(), {"numbers": torch.ones(2, 3)}, "vectors", [{0: torch.export.Dim("batch", min=1)}])


def test_what_cannot_be_kept_or_exported_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> None:
        raise KeyError("an attention that nobody knows")

    monkeypatch.setenv("ENDCAP_MODELS", str(tmp_path))
    with pytest.raises(ServiceError, match="cannot be exported: KeyError"):
        exported_once("an encoder", OnnxTextEncoder, broken)
    (occupied := tmp_path / "file").write_text("")
    monkeypatch.setenv("ENDCAP_MODELS", str(occupied))
    with pytest.raises(ServiceError, match="ENDCAP_MODELS"):
        exported_once("an encoder", OnnxTextEncoder, broken)


def test_an_export_of_other_texts_is_measured_on_these(
    bert: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where int8 is not near enough on them, float32 is served; what was measured is kept."""
    monkeypatch.setenv("ENDCAP_MODELS", str(tmp_path))
    first = exported_text(bert, TEXTS)
    assert OnnxTextEncoder(first).settings.precision == "int8"
    assert exported_text(bert, TEXTS) == first
    assert not list(tmp_path.glob("onnx/*-measured")), "the texts that it was exported by were measured then"
    assert exported_text(bert, TEXTS[:60]) == first
    (kept,) = tmp_path.glob("onnx/*-measured/*")
    assert float(kept.read_text()) > 0.95
    kept.write_text("0.9")
    assert OnnxTextEncoder(exported_text(bert, TEXTS[:60])).settings.precision == "float32"
    assert exported_text(bert, TEXTS[1:61]) == first


def test_overlap_is_the_share_of_neighbours_in_common() -> None:
    angles = np.linspace(0, 3, 40)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert overlap_at(circle, circle) == 1
    assert overlap_at(circle, circle[np.random.default_rng(0).permutation(40)]) < 0.5
    near = [set(np.argsort(-(circle @ row))[1:4].tolist()) for row in circle]
    bent = circle.copy()
    bent[0] = circle[-1]
    found = [set([p for p in np.argsort(-(bent @ row)).tolist() if p != place][:3]) for place, row in enumerate(bent)]
    shares = [len(one & other) / 3 for one, other in zip(near, found, strict=True)]
    assert overlap_at(circle, bent, k=3) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "onnx.json"])
@pytest.mark.parametrize("spoil", ["cut", "lose"])
def test_a_folder_that_is_not_the_one_that_was_written_is_refused(
    exported: tuple[Path, ExportReport], tmp_path: Path, name: str, spoil: str
) -> None:
    folder = Path(copytree(exported[0], tmp_path / "copy"))
    if spoil == "cut":
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    else:
        (folder / name).unlink()
    with pytest.raises(ArtifactError, match="Export the model again"):
        OnnxTextEncoder(folder)


def test_serving_imports_neither_torch_nor_transformers(exported: tuple[Path, ExportReport]) -> None:
    code = f"""if True:
        import sys
        from pathlib import Path
        from endcap.encoders.onnx import OnnxTextEncoder
        assert OnnxTextEncoder(Path({str(exported[0])!r})).encode(["red shoes"]).shape == (1, 16)
        print({{"torch", "transformers"}} & set(sys.modules))
        """
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"


class TestOnnxTextEncoder(EncoderConformance):
    @pytest.fixture(autouse=True)
    def _made(self, exported: tuple[Path, ExportReport]) -> None:
        self.contents = ("red shoes", "green milk boots", "milk")
        self.folder = exported[0]

    def make(self) -> Encoder[str]:
        return OnnxTextEncoder(self.folder)


class TestOnnxQueries(TestOnnxTextEncoder):
    def make(self) -> Encoder[str]:
        return OnnxTextEncoder(self.folder).queries()
