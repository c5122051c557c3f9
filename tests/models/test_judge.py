"""A tuned cross-encoder says the same as ONNX, without torch, as under torch."""

import logging
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

from endcap.core.errors import ArtifactError, CallerError, MissingExtraError
from endcap.models import judge as serving
from endcap.models import judge_export
from endcap.models.finetune.asking import outputs
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.methods import apply_method
from endcap.models.finetune.tuned import Tuned, digest_of, load_tuned, new_net, start_backbone
from endcap.models.judge import OnnxJudge
from endcap.models.judge_export import export_judge
from endcap.testing import JudgeConformance

LISTS = [
    (["green tea", "oat milk"], ["black tea", "running shoes", "oat milk , barista", "usb - c charger"]),
    (["running shoes"] * 30, ["black tea", "green shoes", "charger"]),
    (["usb - c charger 30 w"], ["oat", "milk shoes running black green tea 1 litre", "charger"]),
]
WORDS = " ".join(text for one in LISTS for texts in one for text in texts).split()


def tuned_run(folder, base, kind="interest", method="full", **task):
    """A run's folder, of weights by lot: nothing was learned."""
    asked = {"kind": kind, "architecture": "cross", **task}
    config = FinetuneConfig.model_validate(
        {"task": asked, "base": {"name": str(base), "max_length": 16}, "method": {"kind": method}}
    )
    torch.manual_seed(1)
    backbone = start_backbone(config, str(base))
    apply_method(backbone, config.method, 10)
    net = new_net(config, backbone, 1)
    for name, weights in net.named_parameters():
        if "lora_B" in name or "adapter" in name.lower():
            torch.nn.init.normal_(weights, std=0.3)
    digest = "" if method == "full" else digest_of(start_backbone(config, str(base)))
    Tuned(config, net.eval(), str(base), digest).save(folder / "model")
    return folder


@pytest.fixture(scope="module")
def base(tiny_base):
    return tiny_base(WORDS)


@pytest.fixture(scope="module")
def run(tmp_path_factory, base):
    return tuned_run(tmp_path_factory.mktemp("runs") / "cross", base)


@pytest.fixture(scope="module")
def exported(run):
    return export_judge(run, LISTS)


@pytest.fixture(scope="module")
def saved(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    exported.judge.save(folder)
    return folder


class TestOnnxJudge(JudgeConformance):
    @pytest.fixture(autouse=True)
    def _given(self, saved):
        self.folder = saved

    tolerance = 0.05  # int8: what an activation is rounded to depends on the batch it is in

    def make(self):
        return OnnxJudge.load(self.folder)


def asked_in_training(run, history, candidates):
    """The logits that `endcap predict` turns into probabilities."""
    tuned = load_tuned(run / "model")
    rows = pl.DataFrame({"anchor": [history] * len(candidates), "candidate": candidates})
    return outputs(tuned.net, tuned.config, rows).numpy()


def test_what_says_something_else_is_not_served(base, tmp_path, monkeypatch):
    """LoRA's part is folded in, and the task is the other one."""
    monkeypatch.setattr(judge_export, "MIN_CORRELATION", 2.0)
    run = tuned_run(tmp_path / "run", base, "ranking", "lora")
    done = export_judge(run, LISTS)
    assert "float32, for int8 says something else" in done.told
    same_as_in_training(done.judge, run)


def same_as_in_training(judge, run):
    assert judge.settings.precision == "float32"
    for history, candidates in LISTS:
        found = judge.judge(history, candidates)
        np.testing.assert_allclose(found, asked_in_training(run, history, candidates), atol=1e-4)
        assert np.ptp(found) > 1e-2


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_an_adapter_and_every_pooling_are_read_as_in_training(pooling, base, tmp_path):
    net = judge_export.load_cross(tuned_run(tmp_path / "run", base, method="adapter")).net
    net.backbone.pooling = pooling
    rows = net.backbone.tokeniser(["green tea", "oat"], ["milk shoes", "tea"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = judge_export._Read(net).eval()(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])
        expected = net(["green tea", "oat"], ["milk shoes", "tea"])[:, 0]
    torch.testing.assert_close(found, expected)


def test_words_before_every_text_are_read_in_serving_too(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_export, "MIN_CORRELATION", 2.0)
    run = tuned_run(tmp_path / "run", tiny_base([*WORDS, "passage", ":"], "e5-tiny"))
    done = export_judge(run, LISTS)
    assert done.judge.settings.prefix == "passage: "
    same_as_in_training(done.judge, run)


def test_a_model_that_looks_back_ends_its_pairs_in_serving_too(tiny_causal, tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    monkeypatch.setattr(judge_export, "MIN_CORRELATION", 2.0)
    base = shutil.copytree(tiny_causal, tmp_path / "base")
    AutoTokenizer.from_pretrained(base, eos_token="[SEP]").save_pretrained(base)
    done = export_judge(tuned_run(tmp_path / "run", base, method="lora"), LISTS)
    assert done.judge.settings.closing is not None
    for history, candidates in LISTS:
        found = done.judge.judge(history, candidates)
        np.testing.assert_allclose(found, asked_in_training(tmp_path / "run", history, candidates), atol=1e-4)


def test_small_numbers_are_kept_where_they_say_the_same(exported):
    assert exported.judge.settings.precision == "int8"
    assert exported.difference < 1e-4
    assert exported.correlation >= 0.98
    assert exported.told.startswith("It is served as int8: rank correlation")


def test_what_cannot_be_quantised_is_served_as_it_is(run, monkeypatch):
    def broken(graph):
        raise RuntimeError("no such operator\nmore")

    monkeypatch.setattr(judge_export, "quantised", broken)
    done = export_judge(run, LISTS)
    assert done.judge.settings.precision == "float32"
    assert done.told == "It is served as float32: int8 failed (RuntimeError: no such operator)."
    assert np.isnan(done.correlation)
    same_as_in_training(done.judge, run)


def test_the_quantiser_gives_no_advice(exported, caplog):
    with caplog.at_level(logging.INFO), judge_export._without_advice():
        logging.warning("Please consider to run pre-processing before quantization.")
        logging.warning("Something else.")
    assert [record.getMessage() for record in caplog.records] == ["Something else."]


def test_it_comes_back_from_disk_byte_for_byte(saved, tmp_path):
    again = OnnxJudge.load(saved)
    again.save(tmp_path)
    assert {path.name for path in saved.iterdir()} == {"judge.onnx", "tokeniser.json", "judge.json"}
    for path in saved.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", ["judge.onnx", "tokeniser.json"])
def test_a_damaged_file_is_told(saved, tmp_path, name):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=rf"{name}: The file's checksum differs"):
        OnnxJudge.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=r"cannot be read.*Train again"):
        OnnxJudge.load(tmp_path)


def test_another_version_is_told(saved, tmp_path):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = tmp_path / "judge.json"
    settings.write_text(settings.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(ArtifactError, match="format 7; this version reads 1"):
        OnnxJudge.load(tmp_path)


def test_without_the_tokeniser_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"endcap\[text\]"):
        OnnxJudge.load(saved)


def test_it_is_served_without_torch(saved):
    asked = (
        "import sys; from pathlib import Path; from endcap.models.judge import OnnxJudge\n"
        f"said = OnnxJudge.load(Path({str(saved)!r})).judge(['oat milk'], ['tea', 'shoes'])\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()), said.shape)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[] (2,)"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architecture": "bi"}, "bi-encoder tuned for interest.*architecture=cross"),
        ({"kind": "rating"}, "tuned for rating"),
        ({"method": "prefix"}, "prefix tuning learned cannot be exported"),
    ],
)
def test_what_is_no_judge_is_refused(changed, said, base, tmp_path):
    run = tuned_run(tmp_path / "run", base, **changed)
    with pytest.raises(CallerError, match=said):
        export_judge(run, LISTS[:1])


def test_the_latest_text_is_cut_last():
    assert serving.joined(["first", "second"]) == "second ; first"
