"""Asking tuned models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from endcap.app.finetune import Run, finetune
from endcap.app.finetune_use import answers
from endcap.core.errors import CallerError
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.tuned import load_tuned

Tuning = Callable[..., FinetuneConfig]
QUICK = {"epochs": 1}


@pytest.fixture(scope="module")
def run(tuning: Tuning, colours: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finetune(colours, tuning(), tmp_path_factory.mktemp("runs") / "colours")


class TestAnswers:
    @pytest.mark.parametrize("kind", ["interest", "ranking", "pairs"])
    def test_candidates_are_put_into_order(
        self, tuning: Tuning, liked: pl.DataFrame, tmp_path: Path, kind: str
    ) -> None:
        frame = liked.filter(pl.col("label") > 0).drop("label") if kind == "pairs" else liked
        finetune(frame, tuning(task={"kind": kind}), tmp_path)
        found = answers(tmp_path, ["navy boots", "red coat"], ["orange milk", "amber lamp", "cyan tent"])
        assert found[0].answer == "amber lamp"
        assert [answer.score for answer in found] == sorted((answer.score for answer in found), reverse=True)
        assert found[0].text == "navy boots ; red coat"
        with pytest.raises(CallerError, match="no candidates"):
            answers(tmp_path, ["navy boots"], [])

    def test_classes_labels_and_ratings(self, run: Run, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
        assert [a.answer for a in answers(run.folder, ["red shoes", "blue shoes"], [])] == ["warm", "cold"]
        rated = colours.with_columns(rating=pl.when(pl.col("label") == "warm").then(90.0).otherwise(10.0))
        finetune(rated, tuning(task={"kind": "rating"}), tmp_path / "rating")
        warm, cold = answers(tmp_path / "rating", ["red shoes", "blue shoes"], [])
        assert warm.score > 60 > 40 > cold.score
        both = colours.with_columns(label=pl.col("label") + "|thing")
        finetune(both, tuning(task={"several": True}), tmp_path / "several")
        assert "![Reliability](reliability.svg)" in (tmp_path / "several" / "card.md").read_text()
        assert (tmp_path / "several" / "reliability.svg").is_file()
        (found,) = answers(tmp_path / "several", ["red shoes"], [])
        assert found.answer == "thing|warm"
        assert list(found.classes)[-1] == "cold"
        assert found.score > 0.5

    @pytest.mark.parametrize("kind", ["classification", "rating"])
    def test_pairs_of_texts_are_asked_as_pairs(
        self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path, kind: str
    ) -> None:
        """What the first text says of itself means nothing here."""
        warm = pl.col("label") == "warm"
        target = warm.cast(pl.String).alias("label") if kind == "classification" else warm.cast(float).alias("rating")
        pairs = colours.select(target, text=pl.lit("lamp"), other="text")
        finetune(pairs, tuning(task={"kind": kind}), tmp_path / "run")
        found = answers(tmp_path / "run", ["lamp", "lamp"], [], ["red shoes", "navy rope"])
        if kind == "classification":
            assert [answer.answer for answer in found] == ["true", "false"]
        else:
            assert found[0].score > 0.6 > 0.4 > found[1].score
        for others in ([], ["red shoes"]):
            with pytest.raises(CallerError, match=f"reads pairs of texts, and there are 2 first and {len(others)}"):
                answers(tmp_path / "run", ["lamp", "lamp"], [], others)

    def test_no_second_text_is_taken_where_none_is_read(
        self, run: Run, tuning: Tuning, liked: pl.DataFrame, tmp_path: Path
    ) -> None:
        with pytest.raises(CallerError, match="reads no second text"):
            answers(run.folder, ["red shoes"], [], ["navy rope"])
        finetune(liked.with_columns(other=pl.lit("x")), tuning(task={"kind": "interest"}, train=QUICK), tmp_path)
        with pytest.raises(CallerError, match="reads no second text"):
            answers(tmp_path, ["red shoes"], ["navy rope"], ["lamp"])
        assert len(answers(tmp_path, ["red shoes"], ["navy rope"])) == 1

    def test_folders_that_do_not_tell_of_second_texts_are_read(self, run: Run, tmp_path: Path) -> None:
        model = shutil.copytree(run.folder / "model", tmp_path / "model")
        about = json.loads((model / "tuned.json").read_text())
        assert about.pop("with_other") is False
        (model / "tuned.json").write_text(json.dumps(about))
        assert load_tuned(model).with_other is None
        assert answers(tmp_path, ["red shoes"], [])[0].answer == "warm"
        assert len(answers(tmp_path, ["red shoes"], [], ["red boots"])) == 1

    def test_without_a_question_or_a_run(self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(CallerError, match="no finished run"):
            answers(tmp_path, ["x"], [])
        finetune(colours.select("text"), tuning(task={"kind": "masked"}, train=QUICK), tmp_path / "masked")
        with pytest.raises(CallerError, match="answers no questions"):
            answers(tmp_path / "masked", ["x"], [])
