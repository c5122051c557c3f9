import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from endcap.core.errors import CallerError
from endcap.encoders.text import TextEncoder, TextEncoderConfig
from endcap.encoders.weights import PACKAGED_MODEL, find_weights, source_of


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _overwrite(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _adapt(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "adapter_config.json").write_text("{}")


def _lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def _lose_tokeniser(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)


def _bring_code(folder: Path) -> None:
    settings = {"model_type": "own", "hidden_size": 16, "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "own.py").write_text("raise SystemExit('remote code ran')")


def _be_another_model(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 3}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing.*Get the model"),
        (lambda folder: (folder / "config.json").write_text("{"), "no JSON"),
        (_lose_tokeniser, "no tokeniser.*save_pretrained"),
        (_cut, "damaged.*Get the model"),
        (_overwrite, "damaged"),
        (_pickle, r"pickled \(pytorch_model\.bin\).*safetensors"),
        (_adapt, "adapter.*merge"),
        (_lose_a_shard, "model-00002-of-00002.safetensors is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no model\.safetensors"),
        (_bring_code, "cannot be loaded"),
        (_be_another_model, r"lack \d+ tensors"),
    ],
)
def test_a_folder_that_is_not_whole_is_the_callers_error(
    tiny: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    spoil(folder)
    with pytest.raises(CallerError, match=said):
        TextEncoder(TextEncoderConfig(model=str(folder))).encode(["red"])


@pytest.mark.parametrize("model", ["", "/no/such/folder", "./no/such/folder", __file__, "no/such/model.gguf"])
def test_what_is_not_there_is_the_callers_error(model: str) -> None:
    with pytest.raises(CallerError, match="there is no such"):
        find_weights(model)


def test_a_name_that_the_hub_does_not_give_is_the_callers_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offline(tmp_path, monkeypatch)
    with pytest.raises(CallerError, match="'nobody/nothing' cannot be loaded"):
        find_weights("nobody/nothing")


def test_a_model_of_the_hub_is_read_from_its_cache(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _offline(tmp_path, monkeypatch) / "models--nobody--e5-tiny"
    shutil.copytree(tiny, kept / "snapshots" / "0123")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123")
    encoder = TextEncoder(TextEncoderConfig(model="nobody/e5-tiny", precision="float32"))
    assert encoder.family.passage_prefix == "passage: "
    assert encoder.encode(["red shoes"]).shape == (1, 16)


def test_the_name_is_of_the_files_not_of_the_place(tiny: Path, tmp_path: Path) -> None:
    one, other = (Path(shutil.copytree(tiny, tmp_path / name / "model")) for name in ("a", "b"))
    assert TextEncoder(TextEncoderConfig(model=str(one))).name == TextEncoder(TextEncoderConfig(model=str(other))).name
    (other / "tokenizer_config.json").write_text("{}")
    assert find_weights(str(one)).digest != find_weights(str(other)).digest


def test_packaged_models_have_folders_and_others_are_left_as_they_are(tiny: Path) -> None:
    assert (Path(source_of(PACKAGED_MODEL)) / "model.safetensors").is_file()
    assert source_of(str(tiny)) == str(tiny)
    assert source_of("intfloat/e5-small") == "intfloat/e5-small"


def test_a_gguf_file_asks_for_its_package(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    if importlib.util.find_spec("gguf") is not None:
        pytest.skip("the package gguf is installed")
    with pytest.raises(CallerError, match="pip install gguf"):
        find_weights(str(path))


def _offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub of the test's own, and no hub behind it."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder / "hub"
