"""What the training loop is given: batches, pieces of them, losses and metrics of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from endcap.models import distributed
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.heads import BiModel, Vectors
from endcap.models.finetune.labels import class_weights, label_tensor, labels_of
from endcap.models.finetune.losses import classes
from endcap.models.finetune.tasks import Classification, Matching, Piece, Rating, TuneTask

Tuning = Callable[..., FinetuneConfig]


class Lengths(nn.Module):
    """The logits of a text, or of the one beside it, are a line of its length, so that every row has its own."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(1, outputs)

    def forward(self, texts: Sequence[str], others: Sequence[str] | None = None) -> Tensor:
        return self.line(torch.tensor([[float(len(text))] for text in others or texts]) / 10)


def reading(tuning: Tuning, rows: int = 50, **sections: dict[str, object]) -> Classification:
    draw = np.random.default_rng(0)
    labels: list[object] = ["a", "b", "b", "b", "b"] * (rows // 5)
    if sections.get("task", {}).get("several"):
        labels = [[label] for label in labels]
    frame = pl.DataFrame({"text": ["x" * n for n in draw.integers(1, 40, rows)], "label": labels})
    config = tuning(**{"train": {"batch_size": 8}} | sections)
    return Classification(Lengths(), config, frame, frame.clear(), lambda rows, found: {}, labels=["a", "b"])


def ranking(tuning: Tuning, **sections: dict[str, object]) -> Matching:
    """Thirty lists of 1 to 7 rows, apart in the table."""
    draw = np.random.default_rng(0)
    groups = draw.permutation(np.repeat(np.arange(30), draw.integers(1, 8, 30)))
    frame = pl.DataFrame(
        {
            "anchor": [["x"]] * len(groups),
            "candidate": ["y" * n for n in draw.integers(1, 40, len(groups))],
            "label": draw.integers(0, 2, len(groups)).astype(float),
            "group": [f"g{g}" for g in groups],
        }
    )
    config = tuning(**{"train": {"batch_size": 8}, "task": {"kind": "ranking"}} | sections)
    return Matching(Lengths(1), config, frame, frame.clear(), lambda rows, found: {})


def flat(batches: Sequence[Sequence[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def rows_of(piece: list[int] | Piece) -> list[int]:
    return piece.rows if isinstance(piece, Piece) else piece


class TestBatches:
    def test_a_pass_reads_each_row_once(self, tuning: Tuning) -> None:
        batches = reading(tuning).batches(0)
        assert sorted(flat(batches)) == list(range(50))
        assert sorted(map(len, batches)) == [2, *[8] * 6]

    @pytest.mark.parametrize("evaluations", [2, 3, 7])
    def test_so_do_its_parts_together(self, tuning: Tuning, evaluations: int) -> None:
        task = reading(tuning, train={"batch_size": 8, "evaluations": evaluations})
        passes = [[task.batches(number * evaluations + part) for part in range(evaluations)] for number in range(2)]
        for parts in passes:
            assert all(parts)
            assert sorted(flat([batch for part in parts for batch in part])) == list(range(50))
        assert passes[0] != passes[1]
        assert task.batches(0) == passes[0][0]

    def test_rows_of_a_batch_are_of_like_length(self, tuning: Tuning) -> None:
        task = reading(tuning)
        lengths = task.train["text"].str.len_chars().to_numpy()
        spreads = [np.ptp(lengths[batch]) for batch in task.batches(0)]
        assert np.mean(spreads) < 0.3 * np.ptp(lengths)

    @pytest.mark.parametrize("processes", [2, 3])
    @pytest.mark.parametrize("make", [reading, ranking])
    def test_processes_read_rows_of_their_own(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch, make: Callable[..., TuneTask], processes: int
    ) -> None:
        monkeypatch.setattr(distributed, "processes", lambda: processes)
        task = make(tuning)
        found = []
        for rank in range(processes):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            found.append(task.batches(0))
        assert len({len(batches) for batches in found}) == 1
        together = sorted(flat([batch for batches in found for batch in batches]))
        assert len(together) == len(set(together))
        if make is ranking:
            assert len(together) > 100
        else:
            assert len(together) == 50 // processes * processes
            assert len({tuple(map(len, batches)) for batches in found}) == 1

    def test_two_processes_share_what_one_reads_in_batches_twice_as_large(
        self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alone = reading(tuning, train={"batch_size": 16}).batches(0)
        monkeypatch.setattr(distributed, "processes", lambda: 2)
        halves = []
        for rank in range(2):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            halves.append(reading(tuning).batches(0))
        assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in alone]

    @pytest.mark.parametrize("processes", [1, 2])
    def test_lists_are_never_parted(self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
        monkeypatch.setattr(distributed, "processes", lambda: processes)
        task = ranking(tuning)
        seen: list[int] = []
        for rank in range(processes):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            for batch in task.batches(0):
                groups = task.groups[batch]
                assert 1 + (np.diff(groups) != 0).sum() == len(set(groups.tolist()))
                for group in set(groups.tolist()):
                    assert (groups == group).sum() == (task.groups == group).sum()
                seen += sorted(set(groups.tolist()))
        assert sorted(seen) == list(range(30))


class TestPieces:
    @pytest.mark.parametrize("taught", [False, True])
    @pytest.mark.parametrize("parts", [1, 2, 4, 16])
    @pytest.mark.parametrize(
        ("make", "task"),
        [
            (reading, {}),
            (reading, {"balanced": True}),
            (reading, {"balanced": True, "smoothing": 0.2}),
            (reading, {"balanced": True, "several": True}),
            (ranking, {"kind": "ranking", "loss": "softmax"}),
            (ranking, {"kind": "ranking", "loss": "bpr"}),
        ],
    )
    def test_add_up_to_the_batch(
        self, tuning: Tuning, make: Callable[..., TuneTask], task: dict[str, object], parts: int, taught: bool
    ) -> None:
        """Labels are uneven, so that a piece has more to say than another of as many rows, but not of a teacher."""
        made = make(tuning, task=task, train={"batch_size": 16})
        if taught:
            made.teacher = torch.randn_like(made.outputs(made.train))
        rows = max(made.batches(0), key=len)
        made.net.zero_grad()
        loss = made.loss(rows)
        loss.backward()
        whole = made.net.line.weight.grad.clone()
        assert whole.any()
        made.parts = parts
        pieces = made.pieces(rows)
        assert sorted(flat([rows_of(piece) for piece, _ in pieces])) == sorted(rows)
        assert len(pieces) <= parts
        assert sum(share for _, share in pieces) == pytest.approx(1)
        made.net.zero_grad()
        found = [share * made.loss(piece) for piece, share in pieces]
        assert sum(found).item() == pytest.approx(loss.item(), rel=1e-5)
        sum(found).backward()
        torch.testing.assert_close(made.net.line.weight.grad, whole)

    def test_lists_stay_whole(self, tuning: Tuning) -> None:
        task = ranking(tuning)
        task.parts = 3
        for batch in task.batches(0):
            pieces = [set(task.groups[rows_of(piece)].tolist()) for piece, _ in task.pieces(batch)]
            assert sum(map(len, pieces)) == len(set(task.groups[batch].tolist()))


class TestLabels:
    FRAME = pl.DataFrame({"label": [["b"], ["a", "b"], [], ["new"]]})

    def test_as_numbers(self, tuning: Tuning) -> None:
        several = tuning(task={"several": True})
        assert labels_of(self.FRAME, several) == ("a", "b", "new")
        assert label_tensor(self.FRAME, ("a", "b"), several=True).tolist() == [[0, 1], [1, 1], [0, 0], [0, 0]]
        assert label_tensor(pl.DataFrame({"label": ["b", "a"]}), ("a", "b"), several=False).tolist() == [1, 0]
        assert labels_of(self.FRAME, tuning(task={"kind": "masked"})) == ()

    def test_rare_classes_weigh_more(self) -> None:
        """Three of four against one of four: 4 / (2 x 3) and 4 / (2 x 1)."""
        torch.testing.assert_close(class_weights(torch.tensor([0, 0, 0, 1])), torch.tensor([4 / 6, 4 / 2]))
        several = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 0]])
        torch.testing.assert_close(class_weights(several), torch.tensor([1 / 3, 3.0]))
        assert class_weights(torch.ones(4, 1)).item() == 1 / 4  # one that all carry still counts for something

    def test_balance_and_smoothing_reach_the_loss(self, tuning: Tuning) -> None:
        task = reading(tuning, task={"balanced": True, "smoothing": 0.2})
        rows = list(range(6))
        logits = task.net(task.train[rows]["text"].to_list())
        wanted = classes(logits, label_tensor(task.train[rows], ("a", "b"), False), torch.tensor([2.5, 0.625]), 0.2)
        torch.testing.assert_close(task.loss(rows), wanted)


class Angles(BiModel):
    """A text is the angle of its own vector, in degrees."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.log_scale, self.bias = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.zeros(1))

    def forward(self, texts: Sequence[str]) -> Vectors:
        angles = torch.tensor([float(text) for text in texts]).deg2rad()
        return Vectors(torch.stack([angles.cos(), angles.sin()], 1), self.log_scale.exp(), self.bias * 1)


class TestLevel:
    @staticmethod
    def task(tuning: Tuning, kind: str, teacher: Tensor | None = None) -> Matching:
        rows = {"anchor": [["0"]] * 4, "candidate": ["0", "10", "20", "30"], "label": [1.0, 0, 0, 0], "group": [1] * 4}
        frame, config = pl.DataFrame(rows), tuning(task={"kind": kind})
        return Matching(Angles(), config, frame, frame, lambda rows, found: {}, teacher=teacher)

    @pytest.mark.parametrize(
        ("kind", "teacher", "level"),
        [
            ("interest", None, -np.log(3)),
            ("interest", torch.tensor([3.0, 0, 0, 1]), 1.0),
            ("ranking", torch.tensor([3.0, 0, 0, 1]), 1.0),
        ],
    )
    def test_is_the_labels_or_the_teachers(
        self, tuning: Tuning, kind: str, teacher: Tensor | None, level: float
    ) -> None:
        task = self.task(tuning, kind, teacher)
        task.set_level()
        assert float(task.outputs(task.train).mean()) == pytest.approx(level, abs=1e-5)

    def test_is_nothing_to_an_order(self, tuning: Tuning) -> None:
        task = self.task(tuning, "ranking")
        task.set_level()
        assert task.net.bias.item() == 0


class TestRating:
    @staticmethod
    def task(tuning: Tuning, ratings: list[float], mean: float, spread: float) -> Rating:
        frame = pl.DataFrame({"text": ["x", "xx", "xxx"], "rating": ratings}, schema_overrides={"rating": pl.Float32})
        config = tuning(task={"kind": "rating"})
        return Rating(Lengths(1), config, frame, frame, lambda rows, found: {"mse": 4.0}, mean=mean, spread=spread)

    def test_is_in_units_of_the_spread_and_said_in_those_of_the_data(self, tuning: Tuning) -> None:
        task = self.task(tuning, [1.0, 3.0, 5.0], 3.0, 2.0)
        out = task.net(["x", "xx", "xxx"])[:, 0]
        torch.testing.assert_close(task.loss([0, 1, 2]), (out - torch.tensor([-1.0, 0.0, 1.0])).square().mean())
        np.testing.assert_allclose(task.predict(task.train), out.detach().numpy() * 2 + 3, rtol=1e-6)

    def test_the_loop_is_told_that_less_is_better(self, tuning: Tuning) -> None:
        task = self.task(tuning, [1.0, 3.0, 5.0], 3.0, 2.0)
        assert task.metric() == -4.0
        assert task.evaluations == {0: {"mse": 4.0}}


def test_nothing_to_validate_on_is_no_metric(tuning: Tuning) -> None:
    assert reading(tuning).metric() is None


def test_texts_are_altered_alike_in_one_pass_and_otherwise_in_the_next(tuning: Tuning) -> None:
    task = reading(tuning)
    task.augmenter = lambda texts, rng: [str(rng.integers(1000)) for _ in texts]  # type: ignore[assignment]
    task.batches(0)
    first = task.altered(["a", "b"], [3, 4])
    assert task.altered(["a", "b"], [3, 4]) == first
    assert task.altered(["a", "b"], [5, 4]) != first
    task.batches(1)
    assert task.altered(["a", "b"], [3, 4]) != first


def test_evaluations_are_remembered_for_the_same_run(tuning: Tuning, tmp_path: Path) -> None:
    path = tmp_path / "seen.jsonl"
    told: list[int] = []
    for run_id, epochs in (("a", (0, 1)), ("a", (2,))):
        task = TestRating.task(tuning, [1.0, 3.0, 5.0], 3.0, 2.0)
        task.evaluated = lambda number, metrics: told.append(number)
        task.remember(path, run_id)
        for epoch in epochs:
            task.batches(epoch)
            task.metric()
    assert task.evaluations == {0: {"mse": 4.0}, 1: {"mse": 4.0}, 2: {"mse": 4.0}}
    assert told == [1, 2, 3]
    other = TestRating.task(tuning, [1.0, 3.0, 5.0], 3.0, 2.0)
    other.remember(path, "b")
    assert other.evaluations == {}
