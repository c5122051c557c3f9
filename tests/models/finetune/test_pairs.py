"""Contrastive tuning: anchors of several texts, ranks, and mined negatives, on vectors that are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from endcap.models.finetune import pairs
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.heads import Bags, Vectors
from endcap.models.finetune.pairs import Pairs
from endcap.models.finetune.tuner import Outcome

Tuning = Callable[..., FinetuneConfig]


class Spoken(nn.Module):
    """A text is the angle of its own vector, in degrees: "30", "30 a". strange: those that are turned to another."""

    def __init__(self, strange: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.strange = strange or {}

    def forward(self, texts: Sequence[str]) -> Vectors:
        angles = torch.tensor([self.strange.get(text, float(text.split()[0])) for text in texts]).deg2rad()
        return Vectors(torch.stack([angles.cos(), angles.sin()], 1), torch.ones(1), torch.zeros(1))


def task(tuning: Tuning, rows: pl.DataFrame, **settings: object) -> Pairs:
    config = tuning(task={"kind": "pairs"} | settings)
    return Pairs(Spoken(), config, rows, rows, lambda frame, found: {})


def table(*rows: tuple[list[str], str, list[str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["anchor", "candidate", "known"], orient="row")


class TestBags:
    def test_later_texts_weigh_more(self) -> None:
        """Oldest first: 1/4, 1/2 and 1, then made as long as one."""
        bags = Bags([["a", "b", "c"], ["c"], ["a", "a"]], ["b", "d"], decay=0.5)
        assert bags.texts == ["a", "b", "c", "d"]
        assert bags.candidates.tolist() == [1, 3]
        found = bags.anchors(torch.eye(4))
        wanted = torch.tensor([[0.25, 0.5, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
        torch.testing.assert_close(found, nn.functional.normalize(wanted))

    def test_without_decay_all_weigh_the_same(self) -> None:
        torch.testing.assert_close(Bags([["a", "b"]], [], 1.0).anchors(torch.eye(2)), torch.full((1, 2), 0.5**0.5))


class TestRanks:
    ROWS = table(
        (["0"], "10", []),
        (["1"], "50", []),
        (["2"], "50", ["10"]),
        (["10"], "50", []),  # an anchor is no candidate of its own
        (["90", "0"], "20", []),  # its direction is atan(1/2) = 26.6 degrees
    )

    def test_are_places_among_distinct_candidates(self, tuning: Tuning) -> None:
        assert task(tuning, self.ROWS).predict(self.ROWS).tolist() == [1, 3, 2, 2, 1]

    def test_equal_ones_count_as_before(self, tuning: Tuning) -> None:
        rows = table((["0"], "10", []), (["0 a"], "10 again", []), (["0 b"], "-10", []), (["0 c"], "60", []))
        assert task(tuning, rows).predict(rows).tolist() == [3, 3, 3, 4]

    def test_no_more_than_the_pool_is_ranked(self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pairs, "POOLED", 2)
        rows = table(*(([f"0 {angle}"], str(angle), []) for angle in (50, 40, 30, 20, 60)))
        assert task(tuning, rows).predict(rows).tolist() == [2, 1, 1, 1, 3]

    @pytest.mark.parametrize("columns", [["anchor", "candidate", "known"], ["anchor", "candidate"]])
    def test_an_anchors_other_candidates_are_left_out(self, tuning: Tuning, columns: list[str]) -> None:
        """All of its own are right answers, and each is asked for by itself; nearer ones of other anchors count."""
        rows = table((["0"], "10", []), (["0"], "50", []), (["0"], "30", []), (["0", "0"], "20", []))
        assert task(tuning, rows.select(columns)).predict(rows.select(columns)).tolist() == [1, 2, 2, 2]

    def test_many_anchors_go_in_parts(self, tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pairs, "ENCODED_AT_ONCE", 2)
        assert task(tuning, self.ROWS).predict(self.ROWS).tolist() == [1, 3, 2, 2, 1]

    def test_several_models_rank_together_by_their_mean_cosines(self, tuning: Tuning) -> None:
        """Of the first model, 0.98 against 0.34 and 0.64; of the second, 0.82 against 0.91 and -0.09."""
        rows = table((["0"], "10", []), (["90"], "70", []), (["90"], "-50", []))
        one, other = task(tuning, rows), task(tuning, rows)
        other.net = Spoken({"0": 45})
        assert (one.predict(rows)[0], other.predict(rows)[0]) == (1, 2)
        assert one.predict_together([other], rows)[0] == 1


class TestMining:
    @staticmethod
    def rows() -> pl.DataFrame:
        """Everyone knows the neighbours within ten degrees; the anchor itself is a candidate of others."""
        near = [[str(a + d) for d in (-10, -5, 5, 10)] for a in range(0, 360, 5)]
        return table(
            *(([str(a), str(a + 1)], str(a + 5), known) for a, known in zip(range(0, 360, 5), near, strict=True))
        )

    def test_are_near_and_never_the_anchors_own_or_known(self, tuning: Tuning) -> None:
        rows = self.rows()
        mined = task(tuning, rows, hard_negatives=3)
        mined.batches(0)
        for row, texts in zip(rows.iter_rows(named=True), mined._mined, strict=True):
            assert len(texts) == len(set(texts)) == 3
            assert not set(texts) & {row["candidate"], *row["known"], *row["anchor"]}
            away = [abs((float(text) - float(row["anchor"][1]) + 180) % 360 - 180) for text in texts]
            assert min(away) > 20  # the ten nearest are left out
            assert max(away) < 170

    def test_are_drawn_anew_for_each_evaluation_and_alike_again(self, tuning: Tuning) -> None:
        one, other = (task(tuning, self.rows(), hard_negatives=3) for _ in range(2))
        one.batches(0)
        first = one._mined
        one.batches(1)
        assert one._mined != first
        other.batches(1)
        assert other._mined == one._mined

    def test_few_candidates_give_as_many_as_there_are(self, tuning: Tuning) -> None:
        mined = task(tuning, table((["0"], "10", []), (["20"], "30", []), (["40"], "50", ["10"])), hard_negatives=5)
        mined.batches(0)
        assert [sorted(texts) for texts in mined._mined] == [["30", "50"], ["10", "50"], ["30"]]

    def test_what_an_anchor_has_in_another_row_is_its_own(self, tuning: Tuning) -> None:
        rows = table((["0"], "10", []), (["0"], "20", []), (["90"], "80", []))
        mined = task(tuning, rows, hard_negatives=3, temperature=0.5)
        mined.batches(0)
        assert [sorted(texts) for texts in mined._mined] == [["80"], ["80"], ["10", "20"]]
        mined._mined = []

        def cos(a: float, b: float) -> float:
            return float(np.cos(np.radians(a - b)) / 0.5)

        first = np.log(np.exp([cos(0, 10), cos(0, 80)]).sum()) - cos(0, 10)
        second = np.log(np.exp([cos(0, 20), cos(0, 80)]).sum()) - cos(0, 20)
        third = np.log(np.exp([cos(90, 10), cos(90, 20), cos(90, 80)]).sum()) - cos(90, 80)
        assert mined.loss([0, 1, 2]).item() == pytest.approx((first + second + third) / 3, abs=1e-5)

    def test_the_loss_holds_them_against_all_but_those_who_know_them(self, tuning: Tuning) -> None:
        rows = table((["0"], "10", []), (["90"], "80", ["45"]))
        mined = task(tuning, rows, hard_negatives=1, temperature=0.5)
        mined._mined = [["45"], []]

        def cos(a: float, b: float) -> float:
            return float(np.cos(np.radians(a - b)) / 0.5)

        first = np.log(np.exp([cos(0, 10), cos(0, 80), cos(0, 45)]).sum()) - cos(0, 10)
        second = np.log(np.exp([cos(90, 10), cos(90, 80)]).sum()) - cos(90, 80)
        assert mined.loss([0, 1]).item() == pytest.approx((first + second) / 2, abs=1e-5)


@pytest.mark.parametrize("hard_negatives", [0, 2])
def test_learns_what_is_planted(tuning: Tuning, tuned_on: Callable[..., Outcome], hard_negatives: int) -> None:
    """Six things go with six others, which by chance would be in the second place or third."""
    goes = zip(
        ("shoes", "boots", "shirt", "coat", "milk", "bread"),
        ("lamp", "chair", "table", "drill", "rope", "tent"),
        strict=True,
    )
    rows = pl.DataFrame(list(goes) * 16, schema=["anchor", "candidate"], orient="row")
    outcome = tuned_on(rows, tuning(task={"kind": "pairs", "hard_negatives": hard_negatives}))
    assert max(found["mrr@10"] for found in outcome.metrics) > 0.9


def test_the_most_frequent_of_an_anchor_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(*((["0"], text, ["9"]) for text in ("1", "2", "2", "3", "3", "3")), (["8"], "1", []))
    monkeypatch.setattr(pairs, "OWN_OF_ALL", 2 * rows.height)
    assert [set(texts) for texts in pairs.knowing(rows)["known"]] == [{"9", "3", "2"}] * 6 + [{"1"}]
