"""Whole tunings: every task learns what is planted, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from endcap.app.finetune_measure import measures_of
from endcap.core.errors import CallerError, ServiceError
from endcap.models import distributed
from endcap.models.finetune import heads, tuner
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import part_examples
from endcap.models.finetune.tasks import Classification, TuneTask
from endcap.models.finetune.tuner import Outcome, tune
from endcap.models.loop import Progress

Tuning = Callable[..., FinetuneConfig]
TunedOn = Callable[..., Outcome]
TASTE = ["red", "amber", "blue", "navy"]  # one of the two that `liked` is about
CHEAP = "shoes|boots|shirt|coat|milk|bread"


def best(outcome: Outcome, name: str) -> float:
    return max(metrics[name] for metrics in outcome.metrics)


def ours() -> pl.Expr:
    return pl.col("anchor").list.last().str.split(" ").list.first().is_in(TASTE)


class TestLearning:
    def test_several_labels(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        cheap = pl.when(pl.col("text").str.contains(CHEAP)).then(pl.lit("|cheap")).otherwise(pl.lit(""))
        frame = colours.with_columns(label=pl.col("label") + cheap)
        outcome = tuned_on(frame, tuning(task={"several": True}, train={"epochs": 6}))
        assert outcome.tuned.labels == ("cheap", "cold", "warm")
        assert best(outcome, "f1_macro") > 0.9

    def test_a_second_text(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        """The first says nothing."""
        frame = colours.with_columns(text=pl.lit("chair"), other=pl.col("text"))
        assert best(tuned_on(frame, tuning()), "f1_macro") > 0.95

    def test_ratings(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        frame = colours.with_columns(rating=pl.when(pl.col("label") == "warm").then(100.0).otherwise(20.0))
        outcome = tuned_on(frame, tuning(task={"kind": "rating"}))
        assert best(outcome, "r2") > 0.9
        assert outcome.tuned.mean == pytest.approx(60, abs=10)
        assert outcome.report.best_metric == -min(metrics["mse"] for metrics in outcome.metrics)

    def test_ratings_that_are_all_equal(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        outcome = tuned_on(colours.with_columns(rating=4.0), tuning(task={"kind": "rating"}, train={"epochs": 1}))
        assert (outcome.tuned.mean, outcome.tuned.spread) == (4.0, 1.0)

    @pytest.mark.parametrize("kind", ["interest", "ranking"])
    def test_whether_a_candidate_goes_with_a_history(
        self, tuning: Tuning, tuned_on: TunedOn, liked: pl.DataFrame, kind: str
    ) -> None:
        loss = "bpr" if kind == "ranking" else "softmax"
        outcome = tuned_on(liked, tuning(task={"kind": kind, "loss": loss}))
        assert best(outcome, "ndcg@10") > 0.95

    def test_probabilities_begin_at_the_base_rate_and_learn_at_a_rate_of_their_own(
        self, tuning: Tuning, tuned_on: TunedOn, liked: pl.DataFrame
    ) -> None:
        """At the body's rate nothing would have moved; a scale of 20 alone says yes to nearly everything."""
        train = {"lr": 1e-7, "epochs": 6, "metric": "log_loss"}
        outcome = tuned_on(liked, tuning(task={"kind": "interest"}, method={"kind": "frozen"}, train=train))
        said = [metrics["log_loss"] for metrics in outcome.metrics]
        assert said[0] < 1.2
        assert said[-1] < said[0] - 0.02
        assert outcome.task.predict(liked).mean() < 0.5

    def test_a_cross_encoder_reads_the_history(self, tuning: Tuning, tuned_on: TunedOn, liked: pl.DataFrame) -> None:
        """Those of one taste want everything."""
        task = {"kind": "interest", "architecture": "cross"}
        outcome = tuned_on(liked.with_columns(label=ours().cast(pl.Float32)), tuning(task=task, train={"epochs": 7}))
        assert best(outcome, "auc") > 0.95

    def test_a_cross_encoder_reads_the_candidate(self, tuning: Tuning, tuned_on: TunedOn, liked: pl.DataFrame) -> None:
        """All are of one taste."""
        outcome = tuned_on(liked.filter(ours()), tuning(task={"kind": "ranking", "architecture": "cross"}))
        assert best(outcome, "ndcg@10") > 0.95

    def test_masked_words(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        outcome = tuned_on(colours, tuning(task={"kind": "masked"}, train={"head_rate": 1e-9}))
        said = [metrics["perplexity"] for metrics in outcome.metrics]
        assert said[-1] < 0.6 * said[0]

    def test_a_small_model_imitates_a_larger(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        outcome = tuned_on(colours, tuning(task={"kind": "imitate"}, base={"layers": 1}, train={"lr": 3e-3}))
        said = [metrics["distance"] for metrics in outcome.metrics]
        assert min(said) < 0.7 * said[0]

    def test_from_a_teacher_against_the_labels(
        self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame, tmp_path: Path
    ) -> None:
        """Labels of training are turned round; those of validation are not."""
        part = pl.Series(["train", "train", "valid"] * 32)
        tuned_on(colours, tuning()).tuned.save(tmp_path / "model")
        turned = pl.when(part.to_frame("part")["part"] == "train").then(
            pl.col("label").replace_strict({"warm": "cold", "cold": "warm"})
        )
        frame = colours.with_columns(label=turned.otherwise("label"), part=part)
        outcome = tuned_on(frame, tuning(distil={"teacher": str(tmp_path), "weight": 1.0}))
        assert best(outcome, "f1_macro") > 0.95

    def test_under_attack_and_altered(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        attack = {"kind": "pgd", "steps": 2, "radius": 0.2}
        augment = {"share": 0.5, "synonyms": True, "masked": True, "masked_model": tuning().base.name}
        config = tuning(adversarial=attack, augment=augment, method={"kind": "lora"}, train={"epochs": 6})
        assert best(tuned_on(colours, config), "f1_macro") > 0.9

    @pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
    def test_with_checkpointed_gradients(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        base = {"gradient_checkpointing": True, "dropout": 0.0}
        found = [
            tuned_on(colours, tuning(base=base | changes, method={"kind": "lora"}, train={"epochs": 2}))
            for changes in ({}, {"gradient_checkpointing": False})
        ]
        losses = [[record.loss for record in outcome.report.epochs] for outcome in found]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"epochs": 2, "evaluations": 2, "average": 0.5}, "augment": {"share": 0.5}},
        {"method": {"kind": "adalora"}, "train": {"epochs": 4, "accumulate": 2}},
        {"method": {"kind": "lora", "dropout": 0.2}, "adversarial": {"kind": "fgm"}},
        {"task": {"kind": "pairs", "hard_negatives": 2}, "train": {"epochs": 2, "evaluations": 2}},
        {"task": {"kind": "masked"}, "train": {"epochs": 4, "optimiser": "adafactor"}},
    ],
    ids=["full", "adalora", "lora", "pairs", "masked"],
)
@pytest.mark.parametrize("stopped_in", [2, 4])
def test_stopped_and_resumed_is_as_never_stopped(
    tuning: Tuning, colours: pl.DataFrame, tmp_path: Path, sections: dict[str, dict[str, object]], stopped_in: int
) -> None:
    config = tuning(**sections)
    turned = pl.col("text").str.split(" ").list.reverse().list.join(" ")
    frame = colours.with_columns(anchor=pl.col("text"), candidate=turned)
    examples = part_examples(frame, config)
    measure = measures_of(examples, config).measure

    def stop(at: Progress, task: TuneTask) -> None:
        if (at.epoch, at.step) == (stopped_in, 2):
            raise Stop

    whole = tune(examples, config, measure)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stop):
        tune(examples, config, measure, checkpoint=path, run_id="a", progress=stop)
    resumed = tune(examples, config, measure, checkpoint=path, run_id="a")
    assert resumed.report.resumed_after == stopped_in - 1
    assert resumed.metrics == whole.metrics
    assert [record.loss for record in resumed.report.epochs] == [record.loss for record in whole.report.epochs]
    for name, weights in whole.tuned.net.state_dict().items():
        if "pooler" not in name:
            assert torch.equal(weights, resumed.tuned.net.state_dict()[name]), name


class TestMemory:
    @staticmethod
    def limit(monkeypatch: pytest.MonkeyPatch, error: Exception, rows: int, after: int = 0) -> list[int]:
        """Classification raises where it is given more rows than so many, from its `after`th batch on."""
        read, asked = Classification._loss, list[int]()

        def loss(self: Classification, batch: list[int]) -> Tensor:
            asked.append(len(batch))
            if len(batch) > rows and len(asked) > after:
                raise error
            return read(self, batch)

        monkeypatch.setattr(Classification, "_loss", loss)
        return asked

    @pytest.mark.parametrize(
        ("error", "after"),
        [
            (torch.OutOfMemoryError("CUDA out of memory."), 0),
            (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), 6),
            (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."), 2),
        ],
    )
    def test_a_batch_too_large_is_read_in_pieces_and_the_step_stays_the_same(
        self,
        tuning: Tuning,
        tuned_on: TunedOn,
        colours: pl.DataFrame,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        error: Exception,
        after: int,
    ) -> None:
        monkeypatch.setattr(heads, "HEAD_DROPOUT", 0.0)
        config = tuning(base={"dropout": 0.0}, train={"epochs": 2, "lr": 1e-3})
        whole = tuned_on(colours, config)
        asked = self.limit(monkeypatch, error, 5, after)
        told = tuned_on(colours, config, checkpoint=tmp_path / "checkpoint.safetensors")
        assert max(asked[-4:]) == 4
        assert told.notes == (
            "Memory did not suffice for 16 examples at once: they were read in 4 pieces of about 4, whose gradients "
            "add up to the same step.",
        )
        assert whole.notes == ()
        assert told.report.resumed_after == (1 if after > 4 else 0)
        np.testing.assert_allclose(told.task.predict(colours), whole.task.predict(colours), atol=1e-4)

    def test_a_single_example_too_large_is_told(
        self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.limit(monkeypatch, MemoryError(), 0)
        with pytest.raises(ServiceError, match=r"single example\. Lower base\.max_length"):
            tuned_on(colours, tuning())

    def test_other_errors_are_left_alone(
        self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = self.limit(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 0)
        with pytest.raises(RuntimeError, match="shapes"):
            tuned_on(colours, tuning())
        assert len(asked) == 1


class TestSettings:
    @pytest.mark.parametrize(
        ("sections", "said"),
        [
            ({"task": {"kind": "masked"}, "method": {"kind": "lora"}}, "learned by the whole model, not by lora"),
            ({"task": {"kind": "imitate"}, "method": {"kind": "frozen"}}, "Nothing is left to learn"),
            ({"task": {"kind": "masked"}, "distil": {"teacher": "x"}}, "no teaching of masked"),
            ({"distil": {"teacher": "nowhere"}}, "no finished run"),
            ({"base": {"layers": 3}}, "The model has 2 layers, not 3"),
            ({"augment": {"share": 1.0, "hook": "none"}}, "no augmentation called 'none'"),
        ],
    )
    def test_that_do_not_go_together_are_told(
        self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame, sections: dict[str, object], said: str
    ) -> None:
        with pytest.raises(CallerError, match=said):
            tuned_on(colours, tuning(**sections))

    def test_a_frozen_bi_encoder_has_no_order_to_learn(
        self, tuning: Tuning, tuned_on: TunedOn, liked: pl.DataFrame
    ) -> None:
        with pytest.raises(CallerError, match="would change an order"):
            tuned_on(liked, tuning(task={"kind": "ranking"}, method={"kind": "frozen"}))

    @pytest.mark.parametrize("sections", [{"method": {"kind": "adalora"}}, {"train": {"optimiser": "adafactor"}}])
    def test_that_know_one_process_only_are_told(
        self,
        tuning: Tuning,
        tuned_on: TunedOn,
        colours: pl.DataFrame,
        monkeypatch: pytest.MonkeyPatch,
        sections: dict[str, object],
    ) -> None:
        monkeypatch.setattr(distributed, "processes", lambda: 2)
        with pytest.raises(CallerError, match="in one process only"):
            tuned_on(colours, tuning(**sections))

    def test_a_base_that_is_not_there_is_told(
        self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame, tmp_path: Path
    ) -> None:
        with pytest.raises(CallerError, match="cannot be loaded"):
            tuned_on(colours, tuning(base={"name": str(tmp_path)}))

    def test_a_teacher_of_other_classes_is_told(
        self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame, tmp_path: Path
    ) -> None:
        tuned_on(colours, tuning(train={"epochs": 1})).tuned.save(tmp_path / "model")
        other = colours.with_columns(pl.col("label").replace({"warm": "hot"}))
        with pytest.raises(CallerError, match=r"other classes: hot, warm\."):
            tuned_on(other, tuning(distil={"teacher": str(tmp_path)}))
        with pytest.raises(CallerError, match="tuned for another task"):
            tuned_on(colours, tuning(task={"several": True}, distil={"teacher": str(tmp_path)}))

    @pytest.mark.parametrize("lists", [False, True])
    @pytest.mark.parametrize(("evaluations", "accumulate"), [(1, 1), (2, 1), (3, 2), (50, 1)])
    def test_adalora_plans_by_the_steps_there_are(
        self, tuning: Tuning, colours: pl.DataFrame, evaluations: int, accumulate: int, lists: bool
    ) -> None:
        """Lists of 1 to 24 rows are longer than a batch, or shorter, and never parted."""
        loop = {"epochs": 2, "evaluations": evaluations, "accumulate": accumulate, "batch_size": 8}
        sizes = pl.Series([size for size in (1, 2, 3, 24, 5, 13) * 2 for _ in range(size)])
        groups = {"anchor": pl.col("text"), "candidate": pl.col("text"), "label": pl.arange(96) % 2, "group": sizes}
        frame = colours.with_columns(**groups) if lists else colours
        config = tuning(train=loop, task={"kind": "ranking" if lists else "classification"})
        config = tuner._in_passes(config, part_examples(frame, config))
        examples = part_examples(frame, config)
        task = TuneTask.batches
        net = tuner._new(config, examples)
        made = tuner.task_of(net, examples, lambda rows, found: {})
        sizes = [len(task(made, epoch)) for epoch in range(config.train.epochs)]
        assert tuner._steps(config, examples) == sum(-(-size // accumulate) for size in sizes)
        assert min(sizes) > 0

    def test_nothing_held_out(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        outcome = tuned_on(colours.with_columns(part=pl.lit("train")), tuning(train={"epochs": 2}))
        assert outcome.metrics == []
        assert (outcome.report.best_epoch, outcome.report.best_metric) == (2, None)

    def test_evaluations_are_told_as_they_come(self, tuning: Tuning, tuned_on: TunedOn, colours: pl.DataFrame) -> None:
        told: list[int] = []
        config = tuning(train={"epochs": 2, "evaluations": 2})
        outcome = tuned_on(colours, config, evaluated=lambda number, metrics: told.append(number))
        assert told == [1, 2, 3, 4]
        assert len(outcome.metrics) == 4


@pytest.mark.parametrize(
    "sections",
    [
        {"task": {"kind": "imitate"}},
        {"task": {"kind": "ranking", "architecture": "cross", "loss": "bpr"}},
        {"task": {"kind": "pairs"}},
        {"method": {"kind": "adalora"}},
    ],
    ids=["imitate", "ranking", "pairs", "adalora"],
)
def test_losses_stay_in_float32_whatever_the_precision(
    tuning: Tuning, colours: pl.DataFrame, liked: pl.DataFrame, sections: dict[str, dict[str, object]]
) -> None:
    config = tuning(**sections)
    examples = part_examples(liked if sections.get("task", {}).get("kind") in ("ranking", "pairs") else colours, config)
    task = tuner.task_of(tuner._new(config, examples), examples, lambda rows, found: {})
    with torch.autocast("cpu", torch.bfloat16):
        assert task.loss(list(range(8))).dtype == torch.float32
        assert torch.as_tensor(task.penalty()).dtype == torch.float32
        said = task.net(["red shoes"])
        assert (said if isinstance(said, Tensor) else said.texts).dtype == torch.float32


def test_the_packaged_model_learns_to_tell_intents(tuned_on: TunedOn) -> None:
    """Words of the test are not among those of training: what it read before is what tells."""
    ask = {
        "delivery": ["where is my parcel", "has my order shipped", "track the package", "when will it arrive"],
        "money": ["i want a refund", "give me my cash back", "you charged me twice", "cancel the payment"],
    }
    new = {"delivery": ["courier is late", "shipment not here"], "money": ["reimburse me", "wrong invoice amount"]}
    rows = [(text, label, "train") for label, texts in ask.items() for text in texts * 3]
    rows += [(text, label, "valid") for label, texts in new.items() for text in texts]
    train = {"lr": 1e-2, "epochs": 4, "batch_size": 8, "threads": 1, "precision": "float32"}
    config = FinetuneConfig.model_validate(
        {"method": {"kind": "frozen"}, "train": train, "base": {"max_length": 16}, "track": {"tensorboard": False}}
    )
    outcome = tuned_on(pl.DataFrame(rows, schema=["text", "label", "part"], orient="row"), config)
    assert best(outcome, "accuracy") == 1
