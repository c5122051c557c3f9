"""Losses against values worked out by hand."""

import math

import pytest
import torch

from endcap.models.finetune.losses import classes, contrast, likeness, listwise, pairwise


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def close(found: torch.Tensor, wanted: float) -> None:
    assert found.item() == pytest.approx(wanted, abs=1e-6)


class TestClasses:
    LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0]])

    def test_cross_entropy(self) -> None:
        wanted = -(math.log(sigmoid(2)) + math.log(sigmoid(-1))) / 2
        close(classes(self.LOGITS, torch.tensor([0, 0]), None, 0), wanted)

    def test_weights_of_classes(self) -> None:
        """The mean is weighted: (3 x first + 1 x second) / 4."""
        wanted = -(3 * math.log(sigmoid(2)) + math.log(sigmoid(1))) / 4
        close(classes(self.LOGITS, torch.tensor([0, 1]), torch.tensor([3.0, 1.0]), 0), wanted)

    def test_smoothing_spreads_probability_over_all(self) -> None:
        right, wrong = -math.log(sigmoid(2)), -math.log(sigmoid(-2))
        close(classes(self.LOGITS[:1], torch.tensor([0]), None, 0.2), 0.9 * right + 0.1 * wrong)

    def test_several_labels_are_asked_one_by_one(self) -> None:
        wanted = -(math.log(sigmoid(2)) + math.log(sigmoid(-1)) + 2 * math.log(0.5)) / 4
        close(classes(self.LOGITS, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), None, 0), wanted)

    def test_several_labels_smoothed_and_weighted(self) -> None:
        """Yes becomes 0.9 and no 0.1; a yes of the first label weighs three times."""
        wanted = -(3 * 0.9 * math.log(sigmoid(2)) + 0.1 * math.log(sigmoid(-2)))
        close(classes(torch.tensor([[2.0]]), torch.tensor([[1.0]]), torch.tensor([3.0]), 0.2), wanted)


class TestContrast:
    SCORES = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 5.0]])

    def test_is_the_cross_entropy_of_ones_own_candidate(self) -> None:
        none = torch.zeros(2, 3, dtype=torch.bool)
        first = -1 + math.log(sum(math.exp(s) for s in (1, 2, 3)))
        second = -1 + math.log(sum(math.exp(s) for s in (0, 1, 5)))
        close(contrast(self.SCORES, torch.tensor([0, 1]), none), (first + second) / 2)

    def test_what_is_no_honest_negative_counts_for_nothing(self) -> None:
        ignored = torch.tensor([[False, False, True], [False, True, True]])  # the second's own is ignored in vain
        first = -1 + math.log(math.exp(1) + math.exp(2))
        second = -1 + math.log(math.exp(0) + math.exp(1))
        close(contrast(self.SCORES, torch.tensor([0, 1]), ignored), (first + second) / 2)


class TestListwise:
    def test_two_lists_one_without_a_positive(self) -> None:
        scores, groups = torch.tensor([1.0, 2.0, 0.0, 9.0, 7.0]), torch.tensor([4, 4, 4, 1, 1])
        total = math.log(math.e + math.e**2 + 1)
        close(listwise(scores, torch.tensor([1.0, 0, 0, 0, 0]), groups), total - 1)
        close(listwise(scores, torch.tensor([3.0, 1.0, 0, 0, 0]), groups), (3 * (total - 1) + (total - 2)) / 4)

    def test_is_the_mean_over_lists_whatever_their_length(self) -> None:
        scores, wanted = torch.tensor([0.0, 0, 0, 0, 0]), torch.tensor([1.0, 0, 1, 0, 0])
        close(listwise(scores, wanted, torch.tensor([0, 0, 1, 1, 1])), (math.log(2) + math.log(3)) / 2)

    def test_nothing_to_learn_still_has_a_gradient(self) -> None:
        scores = torch.zeros(3, requires_grad=True)
        for loss in (listwise, pairwise):
            found = loss(scores, torch.zeros(3), torch.zeros(3))
            found.backward()
            assert found.item() == 0


def test_pairwise_is_over_pairs_of_one_list_that_differ() -> None:
    scores, wanted = torch.tensor([1.0, 3.0, 0.0, 5.0]), torch.tensor([2.0, 1.0, 1.0, 0.0])
    found = pairwise(scores, wanted, torch.tensor([0, 0, 0, 1]))
    close(found, -(math.log(sigmoid(1 - 3)) + math.log(sigmoid(1 - 0))) / 2)


class TestLikeness:
    def test_softened_by_the_temperature(self) -> None:
        """T = 2: the teacher says sigmoid(2) of the first, the student a half; times T squared."""
        teacher, student = torch.tensor([[4.0, 0.0]]), torch.zeros(1, 2)
        p = sigmoid(2)
        wanted = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
        close(likeness(student, teacher, 2.0), 4 * wanted)

    def test_alike_is_nothing(self) -> None:
        logits = torch.randn(5, 3)
        close(likeness(logits, logits + 7, 3.0), 0)

    def test_of_independent_labels_the_level_counts(self) -> None:
        """Yes to all and no to all are the same softmax and different labels. T = 2, one label: the teacher says
        sigmoid(2), the student sigmoid(1)."""
        yes, no = torch.full((1, 3), 6.0), torch.full((1, 3), -6.0)
        close(likeness(yes, no, 1.0), 0)
        assert likeness(yes, no, 1.0, several=True) > 5
        p = sigmoid(2)
        wanted = -p * math.log(sigmoid(1)) - (1 - p) * math.log(1 - sigmoid(1))
        close(likeness(torch.full((1, 1), 2.0), torch.full((1, 1), 4.0), 2.0, several=True), 4 * wanted)

    def test_single_scores_are_compared_by_square(self) -> None:
        close(likeness(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]), 5.0), 2)
