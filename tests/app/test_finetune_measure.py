"""What a tuning is measured by, and what is refused before anything is tuned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from endcap.app import finetune as module
from endcap.app.finetune import finetune
from endcap.app.finetune_measure import measures_of, word_reader
from endcap.core.errors import CallerError, DataError, MissingExtraError
from endcap.encoders.weights import PACKAGED, PACKAGED_MODEL
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import part_examples

Tuning = Callable[..., FinetuneConfig]
QUICK = {"epochs": 1}


class TestMeasuring:
    """What is wrong is seen before anything is tuned."""

    @pytest.fixture(autouse=True)
    def _no_tuning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "tune", None)

    def test_a_metric_that_there_is_not(self, tuning: Tuning, colours: pl.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(CallerError, match=r"train\.metric: There is no metric 'f2'.*There are: accuracy, "):
            finetune(colours, tuning(train={"metric": "f2"}), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_part_that_tells_nothing(self, tuning: Tuning, liked: pl.DataFrame, tmp_path: Path) -> None:
        part = pl.when(pl.col("label") > 0, pl.int_range(pl.len()) < 90).then(pl.lit("test")).otherwise(pl.lit("train"))
        with pytest.raises(DataError, match=r"the test part: All labels are the same"):
            finetune(liked.with_columns(part=part), tuning(task={"kind": "interest"}), tmp_path / "run")
        alone = liked.with_columns(group=pl.int_range(pl.len()))
        with pytest.raises(DataError, match=r"the validation part: No list has both"):
            finetune(alone, tuning(task={"kind": "ranking"}), tmp_path / "run")


class TestMeasures:
    def test_groups_that_are_no_lists_only_keep_rows_together(self, tuning: Tuning, liked: pl.DataFrame) -> None:
        config = tuning(task={"kind": "interest"})
        for group, has in ((pl.int_range(pl.len()), False), (pl.col("group"), True)):
            examples = part_examples(liked.with_columns(group=group), config)
            found = measures_of(examples, config).measure(examples.test, np.full(examples.test.height, 0.5))
            assert ("ndcg@10" in found) == has
            assert found["auc"] == 0.5

    def test_segments_that_cannot_be_measured_are_left_out(self, tuning: Tuning, liked: pl.DataFrame) -> None:
        config = tuning(task={"kind": "interest"}, split={"shares": (0.4, 0.2, 0.4)})
        examples = part_examples(liked.with_columns(segment=pl.col("label").cast(pl.String)), config)
        measures = measures_of(examples, config)
        assert measures.segments(examples.test, np.full(examples.test.height, 0.5)) == {}
        halves = examples.test.with_columns(segment=pl.int_range(pl.len()) % 2)
        assert set(measures.segments(halves, np.full(halves.height, 0.5))) == {"segment: 0", "segment: 1"}

    @pytest.mark.parametrize("several", [False, True])
    def test_a_label_that_training_never_saw_counts_against(
        self, tuning: Tuning, colours: pl.DataFrame, several: bool
    ) -> None:
        part = pl.Series(["train"] * 60 + ["test"] * 36)
        frame = colours.sample(fraction=1, shuffle=True, seed=1).with_columns(part=part)
        label = pl.when(pl.int_range(pl.len()) >= 78).then(pl.lit("new")).otherwise("label")
        config = tuning(task={"several": several})
        examples = part_examples(frame.with_columns(label=label), config)
        assert measures_of(examples, config).labels == ("cold", "warm")
        labels = examples.test["label"].explode().to_list() if several else examples.test["label"].to_list()
        right = np.array([[label == "cold", label == "warm"] for label in labels], np.float32)
        right[:, 0] += (1 - right.sum(1)) * (not several)
        found = measures_of(examples, config).measure(examples.test, right)
        assert found["accuracy"] == 0.5
        assert found["f1_macro"] < 0.7

    def test_an_anchor_that_was_harmed_is_no_candidate_of_its_own(self, tuning: Tuning, colours: pl.DataFrame) -> None:
        config = tuning(task={"kind": "pairs"}, train=QUICK)
        frame = colours.select(anchor="text", candidate=pl.col("text").shift(-1, fill_value="red"))
        examples = part_examples(frame, config)
        harmed = dict(measures_of(examples, config).harmed(examples))
        assert set(harmed) == {"typos", "capitals", "dropped words", "synonyms"}
        before = dict(examples.test.select("row", "anchor").rows())
        for rows in harmed.values():
            assert rows.height == examples.test.height > 0
            assert all(set(before[row]) <= set(known) for row, known in rows.select("row", "known").rows())


class TestWordReader:
    """The words that may stand for another are the same whatever is tuned."""

    @pytest.mark.parametrize(
        ("text", "width"), [("red shoes", 384), ("Blaue Schuhe für Läufer", 384), ("красный чай", 32)]
    )
    def test_is_minilm_where_it_knows_the_script(self, tuning: Tuning, text: str, width: int) -> None:
        vectors = word_reader([text], tuning())(["red", "blue"])
        assert vectors.shape == (2, width)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)

    def test_is_the_base_where_minilm_is_missing(self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing() -> Path:
            raise MissingExtraError(PACKAGED_MODEL, "text")

        monkeypatch.setitem(PACKAGED, PACKAGED_MODEL, missing)
        assert word_reader(["red shoes"], tuning())(["red"]).shape == (1, 32)
