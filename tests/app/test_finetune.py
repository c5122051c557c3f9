"""Runs as folders: whole, resumed, measured, told of on a card, begun from and asked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from endcap.app.finetune import Run, finetune
from endcap.app.finetune_settings import settings_of
from endcap.app.finetune_start import Source
from endcap.app.finetune_use import answers
from endcap.core.errors import ArtifactError, CallerError
from endcap.encoders.text import TextEncoder, TextEncoderConfig
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.tasks import Classification
from endcap.models.finetune.tuned import files_digest, load_tuned

Tuning = Callable[..., FinetuneConfig]
QUICK = {"epochs": 1}
FILES = {
    *("finetune.toml", "run.json", "run-id", "refused.jsonl", "parts.parquet", "curves.jsonl", "curves.svg", "card.md"),
    *("metrics.json", "predictions.parquet", "model"),
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def wrong(colours: pl.DataFrame) -> pl.DataFrame:
    """The colours after two rows that cannot be used, in two segments, one of them too small to be measured."""
    rows = pl.DataFrame({"text": ["", "red"], "label": ["warm", None]})
    segment = pl.when(pl.int_range(98) % 49 == 0).then(pl.lit("few")).otherwise(pl.lit("many"))
    return pl.concat([rows, colours]).with_columns(segment=segment)


@pytest.fixture(scope="module")
def config(tuning: Tuning) -> FinetuneConfig:
    return tuning(train={"epochs": 2, "evaluations": 2}, track={"tensorboard": True}, split={"shares": (0.5, 0.2, 0.3)})


@pytest.fixture(scope="module")
def run(wrong: pl.DataFrame, config: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("data") / "colours.jsonl"
    wrong.write_ndjson(path)
    return finetune(path, config, tmp_path_factory.mktemp("runs") / "colours")


class TestFolder:
    def test_is_whole(self, run: Run) -> None:
        assert names(run.folder) == FILES | {"reliability.svg", "tensorboard"}
        assert any((run.folder / "tensorboard").iterdir())
        assert run.first

    def test_says_all_settings(self, run: Run, config: FinetuneConfig) -> None:
        assert settings_of(run.folder / "finetune.toml") == config

    def test_holds_every_row(self, run: Run, wrong: pl.DataFrame) -> None:
        parts = pl.read_parquet(run.folder / "parts.parquet")
        refused = pl.read_ndjson(run.folder / "refused.jsonl")
        assert sorted([*parts["row"], *refused["row"]]) == list(range(1, wrong.height + 1))
        assert refused.select("row", "reason").rows() == [(1, "empty text"), (2, "no label")]
        counts = dict(parts["part"].value_counts().rows())
        assert read(run.folder / "run.json")["rows"] == counts | {"refused": 2}
        assert (counts["train"], counts["valid"] + counts["test"]) == (48, 48)

    def test_holds_what_was_predicted(self, run: Run) -> None:
        rows = pl.read_parquet(run.folder / "predictions.parquet")
        said = np.array(rows["predicted"].to_list())
        np.testing.assert_allclose(said.sum(1), 1, rtol=1e-5)
        truth = rows["label"].replace_strict({"cold": 0, "warm": 1}).to_numpy()
        assert run.metrics["test"]["accuracy"] == pytest.approx((said.argmax(1) == truth).mean())

    def test_figures_are_those_of_the_run(self, run: Run) -> None:
        assert read(run.folder / "metrics.json") == run.metrics
        harmed = {f"test: {name}" for name in ("typos", "capitals", "dropped words", "synonyms")}
        assert set(run.metrics) == {"valid", "test", "segment: many"} | harmed
        assert run.metrics["test: capitals"] == run.metrics["test"]  # the tokeniser does not see capitals
        facts = read(run.folder / "run.json")
        assert run.metrics["valid"]["f1_macro"] == pytest.approx(max(f["f1_macro"] for f in facts["evaluations"][0]))
        assert len(facts["evaluations"][0]) == 4
        assert facts["labels"] == ["cold", "warm"]
        assert facts["versions"]["torch"] == torch.__version__

    def test_says_what_it_takes_to_repeat_it(self, run: Run, config: FinetuneConfig) -> None:
        facts, card = read(run.folder / "run.json"), (run.folder / "card.md").read_text()
        assert (facts["processes"], facts["device"], facts["precision"]) == (1, "cpu", "float32")
        assert set(facts["digests"]) == {"rows", "base"}
        assert facts["digests"]["base"] == files_digest(config.base.name)
        assert f"`endcap finetune {facts['data']} --config finetune.toml --run FOLDER`" in card
        assert Path(facts["data"]).name == "colours.jsonl"

    def test_curves_hold_every_evaluation(self, run: Run) -> None:
        lines = [json.loads(line) for line in (run.folder / "curves.jsonl").read_text().splitlines()]
        evaluated = [line for line in lines if "valid/f1_macro" in line]
        assert [line["valid/log_loss"] for line in evaluated] == [m["log_loss"] for m in run.outcomes[0].metrics]
        assert [line["step"] for line in evaluated] == [2, 3, 5, 6]  # 48 rows are three batches, in two parts
        assert any("train/loss" in line for line in lines)

    def test_the_card_says_the_figures(self, run: Run) -> None:
        card = (run.folder / "card.md").read_text()
        for part, found in run.metrics.items():
            line = next(line for line in card.splitlines() if line.startswith(f"| {part} |"))
            assert {f"{value:.4f}" for value in found.values()} <= set(line.split(" "))
        for said in (
            "Classes: ",
            "cold (24)",
            "warm (24)",
            "2 rows were left out",
            "colours.jsonl",
            "; parted stratified by label. ",
        ):
            assert said in card
        assert re.search(r"The test part has \d+ rows, so that a share among them may be off by 0\.\d\d\.", card)
        assert "(100 %)" in card
        assert f"torch {torch.__version__}" in card

    def test_a_finished_one_is_not_written_over(self, run: Run, wrong: pl.DataFrame, config: FinetuneConfig) -> None:
        before = (run.folder / "run.json").read_bytes()
        with pytest.raises(CallerError, match="holds a finished run"):
            finetune(wrong, config, run.folder)
        assert (run.folder / "run.json").read_bytes() == before


class Stop(Exception):
    pass


def tensorboard_steps(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars("valid/f1_macro")]


def stopped_at(evaluation: int) -> Callable[[dict[str, float]], None]:
    seen: list[dict[str, float]] = []

    def stop(metrics: dict[str, float]) -> None:
        seen.append(metrics)
        if len(seen) == evaluation:
            raise Stop

    return stop


class TestInterrupted:
    def test_and_gone_on_with_is_as_never_interrupted(
        self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path
    ) -> None:
        """In the second model of two, after its first evaluation."""
        config = tuning(train={"epochs": 2}, ensemble=2)
        whole = finetune(colours, config, tmp_path / "whole")
        with pytest.raises(Stop):
            finetune(colours, config, tmp_path / "parts", at_evaluation=stopped_at(4))
        assert "run.json" not in names(tmp_path / "parts")
        resumed = finetune(colours, config, tmp_path / "parts")
        assert names(tmp_path / "parts") == names(tmp_path / "whole") == FILES | {"reliability.svg", "model-2"}
        assert resumed.metrics == whole.metrics
        assert [outcome.report.resumed_after for outcome in resumed.outcomes] == [2, 1]
        for name in ("predictions.parquet", "parts.parquet"):
            assert pl.read_parquet(tmp_path / "parts" / name).equals(pl.read_parquet(tmp_path / "whole" / name))
        facts = [read(tmp_path / name / "run.json") for name in ("whole", "parts")]
        assert facts[0]["evaluations"] == facts[1]["evaluations"]
        assert [len(found) for found in facts[1]["evaluations"]] == [2, 2]

    def test_has_each_step_once_in_its_curves(self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
        """Of the second pass, the figures that were written last are those that count."""
        config = tuning(train={"epochs": 3, "batch_size": 4}, track={"tensorboard": True})
        whole = finetune(colours, config, tmp_path / "whole")
        with pytest.raises(Stop):
            finetune(colours, config, tmp_path / "parts", at_evaluation=stopped_at(2))
        finetune(colours, config, tmp_path / "parts")
        lines = [(tmp_path / name / "curves.jsonl").read_text() for name in ("whole", "parts")]
        assert lines[0] == lines[1]
        assert lines[0].count("valid/f1_macro") == len(whole.outcomes[0].metrics) == 3
        for name in ("whole", "parts"):
            assert tensorboard_steps(tmp_path / name) == [15, 30, 45]

    def test_before_its_first_checkpoint_leaves_no_curves_to_another(
        self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path
    ) -> None:
        config = tuning(train=QUICK, track={"tensorboard": True})
        with pytest.raises(Stop):
            finetune(colours, config, tmp_path / "run", at_evaluation=stopped_at(1))
        finetune(colours.head(80), config, tmp_path / "run")
        assert tensorboard_steps(tmp_path / "run") == [3]

    def test_and_begun_otherwise_is_told(self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(Stop):
            finetune(colours, tuning(train={"epochs": 2}), tmp_path, at_evaluation=stopped_at(2))
        with pytest.raises(CallerError, match="interrupted run of other data or settings"):
            finetune(colours, tuning(train={"epochs": 3}), tmp_path)
        with pytest.raises(CallerError, match="interrupted run of other data or settings"):
            finetune(colours.head(80), tuning(train={"epochs": 2}), tmp_path)

    @pytest.mark.parametrize("named", ["base", "teacher", "rewriter"])
    def test_and_on_a_model_that_is_another_now_is_told(
        self, tuning: Tuning, colours: pl.DataFrame, tiny_bert: Path, tmp_path: Path, named: str
    ) -> None:
        """By the name of a folder that was tuned anew meanwhile, and then as it was again."""
        other = shutil.copytree(tiny_bert, tmp_path / "other")
        if named == "teacher":
            finetune(colours, tuning(train=QUICK, method={"kind": "lora"}), tmp_path / "other-run")
            other = tmp_path / "other-run"
        given = {
            "base": {"base": {"name": str(other), "max_length": 16}},
            "teacher": {"distil": {"teacher": str(other)}},
            "rewriter": {"augment": {"share": 0.5, "masked": True, "masked_model": str(other)}},
        }[named]
        config = tuning(train={"epochs": 2}, method={"kind": "lora"}, **given)
        with pytest.raises(Stop):
            finetune(colours, config, tmp_path / "run", at_evaluation=stopped_at(2))
        (weights,) = (*other.glob("model/head.safetensors"), *other.glob("model.safetensors"))
        was = weights.read_bytes()
        weights.write_bytes(was[:-1] + bytes([was[-1] ^ 1]))
        with pytest.raises(CallerError, match="or on another base model"):
            finetune(colours, config, tmp_path / "run")
        weights.write_bytes(was)
        assert finetune(colours, config, tmp_path / "run").outcomes[0].report.resumed_after == 1

    def test_on_what_has_grown_goes_on_with_what_it_had_read(
        self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path
    ) -> None:
        config, tables = tuning(train={"epochs": 2}), [colours.head(90), colours]
        growing = Source("a shop", lambda: tables.pop(0))
        with pytest.raises(Stop):
            finetune(growing, config, tmp_path, at_evaluation=stopped_at(2))
        run = finetune(growing, config, tmp_path)
        assert run.outcomes[0].report.resumed_after == 1
        assert len(tables) == 1
        assert pl.read_parquet(tmp_path / "examples.parquet").equals(colours.head(90))
        assert read(tmp_path / "run.json")["data"] == "a shop"
        assert "`endcap finetune examples.parquet --config finetune.toml" in (tmp_path / "card.md").read_text()
        whole = finetune(colours.head(90), config, tmp_path / "whole")
        assert run.metrics == whole.metrics

    def test_on_what_has_grown_is_not_gone_on_with_otherwise(
        self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path
    ) -> None:
        """With other settings or of another source the table is made anew, and so is a run that had learned nothing."""
        tables = [colours.head(80), colours.head(84), colours.head(88), colours.head(92)]
        growing = Source("a shop", lambda: tables.pop(0))
        with pytest.raises(ZeroDivisionError):
            finetune(growing, tuning(train={"epochs": 2}), tmp_path, tell=lambda stage, *_: 1 / ("read" in stage))
        with pytest.raises(Stop):
            finetune(growing, tuning(train={"epochs": 2}), tmp_path, at_evaluation=stopped_at(2))
        assert pl.read_parquet(tmp_path / "examples.parquet").height == 84
        with pytest.raises(CallerError, match="interrupted run of other data or settings"):
            finetune(growing, tuning(train={"epochs": 3}), tmp_path)
        with pytest.raises(CallerError, match="interrupted run of other data or settings"):
            finetune(Source("another", growing.make), tuning(train={"epochs": 2}), tmp_path)
        assert pl.read_parquet(tmp_path / "examples.parquet").height == 84
        assert not tables

    def test_before_anything_was_learned_leaves_the_folder_free(
        self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path
    ) -> None:
        (tmp_path / "base").mkdir()
        with pytest.raises(CallerError, match="cannot be loaded"):
            finetune(colours, tuning(base={"name": str(tmp_path / "base")}), tmp_path / "run")
        finetune(colours, tuning(train=QUICK), tmp_path / "run")

    def test_with_a_damaged_checkpoint_is_told(self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
        config = tuning(train={"epochs": 2})
        with pytest.raises(Stop):
            finetune(colours, config, tmp_path, at_evaluation=stopped_at(2))
        checkpoint = tmp_path / "checkpoint-1-0.safetensors"
        checkpoint.write_bytes(checkpoint.read_bytes()[:-7])
        with pytest.raises(ArtifactError, match="Delete it and train from the start") as told:
            finetune(colours, config, tmp_path)
        assert told.value.where == str(checkpoint)
        checkpoint.unlink()
        assert finetune(colours, config, tmp_path).outcomes[0].report.resumed_after == 0


def test_a_run_that_is_refused_leaves_no_folder(tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
    pairs, config = colours.select(anchor="text", candidate="text"), tuning(task={"kind": "pairs"})
    config = config.model_copy(update={"method": config.method.model_copy(update={"kind": "frozen"})})
    (tmp_path / "there").mkdir()
    for name in ("run", "there"):
        with pytest.raises(CallerError, match="Nothing is left to learn"):
            finetune(Source("a shop", lambda: pairs), config, tmp_path / name)
    assert names(tmp_path) == {"there"}


def test_a_best_figure_below_zero_is_told_as_it_is(tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
    part = pl.Series(["train"] * 60 + ["valid"] * 36)
    rated = colours.select("text", part=part, rating=pl.when(part == "valid").then(99.0).otherwise(1.0))
    rated = rated.with_columns(pl.col("rating") + pl.int_range(pl.len()) % 2)
    told: list[str] = []
    config = tuning(task={"kind": "rating"}, train={"epochs": 2, "metric": "r2"})
    finetune(rated, config, tmp_path, tell=lambda *said: told.append(str(said[-1])))
    assert any("best r2 so far -" in said for said in told)


def test_a_run_of_several_models_says_their_mean(tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
    run = finetune(colours, tuning(train=QUICK, ensemble=2), tmp_path)
    text = colours["text"][0]
    alone = []
    for name in ("model", "model-2"):
        (tmp_path / "apart" / name).mkdir(parents=True)
        shutil.copytree(tmp_path / name, tmp_path / "apart" / name / "model")
        alone += answers(tmp_path / "apart" / name, [text], [])
    (together,) = answers(tmp_path, [text], [])
    sure = [answer.score if answer.answer == together.answer else 1 - answer.score for answer in alone]
    assert together.score == pytest.approx(np.mean(sure), abs=1e-6)
    assert sure[0] != sure[1]
    assert len(run.outcomes) == 2
    card = (tmp_path / "card.md").read_text()
    assert "an ensemble of 2" in card
    assert "a judge, a teacher and a base take the first alone" in card


class TestChain:
    def test_from_language_to_titles_to_interest(
        self, tuning: Tuning, colours: pl.DataFrame, liked: pl.DataFrame, tmp_path: Path
    ) -> None:
        language = finetune(colours.select("text"), tuning(task={"kind": "masked"}, train=QUICK), tmp_path / "language")
        assert names(language.folder) == FILES
        pairs = colours.select(anchor="text", candidate=pl.col("text").str.split(" ").list.reverse().list.join(" "))
        base = {"name": str(tmp_path / "language")}
        config = tuning(task={"kind": "pairs"}, base=base, method={"kind": "lora"}, train=QUICK)
        titles = finetune(pairs, config, tmp_path / "titles")
        assert names(titles.folder) == FILES | {"encoder"}
        base = {"name": str(tmp_path / "titles")}
        config = tuning(task={"kind": "interest", "architecture": "cross"}, base=base, train=QUICK)
        interest = finetune(liked, config, tmp_path / "interest")
        assert names(interest.folder) == FILES | {"reliability.svg"}
        begun = load_tuned(tmp_path / "language" / "model").net.body.get_input_embeddings().weight
        went = load_tuned(tmp_path / "titles" / "model").backbone.body.get_input_embeddings().weight
        torch.testing.assert_close(begun, went)  # LoRA leaves them alone

        encoder = TextEncoder(TextEncoderConfig(model=str(tmp_path / "titles" / "encoder"), precision="float32"))
        texts = ["red shoes", "navy tent milk"]
        wanted = load_tuned(tmp_path / "titles" / "model").embed(texts)
        np.testing.assert_allclose(encoder.encode(texts), wanted, atol=1e-4)

    def test_what_has_no_encoder_says_so(self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
        pairs = colours.select(anchor="text", candidate="text")
        for method, said in (("adapter", True), ("ia3", False)):
            config = tuning(task={"kind": "pairs"}, method={"kind": method}, train=QUICK)
            run = finetune(pairs, config, tmp_path / method)
            assert run.facts["encoder"] == (run.folder / "encoder").exists() == (not said)
            card = (run.folder / "card.md").read_text()
            assert ("What adapter learned cannot become part" in card) == said

    def test_a_change_of_plan_is_on_the_card(
        self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = Classification._loss

        def loss(self: Classification, rows: list[int]) -> torch.Tensor:
            if len(rows) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return read(self, rows)

        monkeypatch.setattr(Classification, "_loss", loss)
        run = finetune(colours, tuning(train=QUICK), tmp_path)
        assert "read in 2 pieces of about 8" in run.facts["notes"][0]
        assert f"- {run.facts['notes'][0]}" in (tmp_path / "card.md").read_text()


def test_a_class_that_no_test_row_has_is_said(tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
    rare = pl.DataFrame({"text": ["tan tent"], "label": ["rare"], "part": ["train"]})
    parts = pl.Series(["train", "train", "valid", "test"])
    rows = colours.select("text", "label").head(40).with_columns(part=pl.concat([parts] * 10))
    finetune(pl.concat([rows, rare]), tuning(train=QUICK), tmp_path / "run")
    assert "- No test row has rare: no figure tells of them." in (tmp_path / "run" / "card.md").read_text()


def test_texts_that_are_in_training_and_in_the_test_are_told(
    tuning: Tuning, colours: pl.DataFrame, tmp_path: Path
) -> None:
    parts = pl.Series(["train", "train", "train", "valid", "test"])
    rows = colours.select("text", "label").sample(40, seed=0).with_columns(part=pl.concat([parts] * 8))
    rows = rows.with_columns(pl.col("text") + pl.int_range(pl.len()).cast(pl.String))
    again = rows.filter(pl.col("part") == "train").head(3).with_columns(part=pl.lit("test"))
    finetune(pl.concat([rows, again]), tuning(train=QUICK), tmp_path / "run")
    assert "- 3 of 11 test rows have a text that was trained on too" in (tmp_path / "run" / "card.md").read_text()


def test_nothing_held_out_is_said(tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
    run = finetune(colours.with_columns(part=pl.lit("train")), tuning(train=QUICK), tmp_path)
    assert run.metrics == {}
    assert names(tmp_path) == FILES - {"predictions.parquet"}
    assert "nothing was measured" in (tmp_path / "card.md").read_text()
