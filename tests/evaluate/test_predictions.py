"""Figures of predictions against values worked out by hand, and against scikit-learn where that is slower."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from endcap.core.errors import DataError
from endcap.evaluate.predictions import classes, labels, lists, numbers, places, probabilities, reliability


class TestReliability:
    def test_of_a_case_made_by_hand(self) -> None:
        """Two bins: 0.3 said and 0.5 found (two rows), 0.9 said and 0.75 found (four)."""
        found = reliability(np.array([0.3, 0.3, 0.9, 0.9, 0.9, 0.9]), np.array([1, 0, 1, 1, 1, 0]), bins=2)
        np.testing.assert_allclose(found.confidence, [0.3, 0.9])
        np.testing.assert_allclose(found.right, [0.5, 0.75])
        assert found.count.tolist() == [2, 4]
        assert found.ece == pytest.approx((2 * 0.2 + 4 * 0.15) / 6)

    def test_certainty_is_in_the_last_bin(self) -> None:
        assert reliability(np.array([1.0, 0.0]), np.array([1, 0])).ece == 0


class TestClasses:
    def test_of_a_case_made_by_hand(self) -> None:
        truth = np.array([0, 0, 1, 2])
        said = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.5, 0.2, 0.3]])
        found = classes(truth, said)
        assert found["accuracy"] == 0.5
        assert found["precision_macro"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
        assert found["recall_macro"] == pytest.approx((1 / 2 + 1 + 0) / 3)
        assert found["f1_macro"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
        assert found["f1_micro"] == 0.5
        assert found["log_loss"] == pytest.approx(-np.log([0.6, 0.2, 0.8, 0.3]).mean())
        assert found["auc"] == pytest.approx((3 / 4 + 1 + 1) / 3)  # class 0: 0.6 above both, 0.2 above one of two
        assert found["pr_auc"] == pytest.approx(((1 + 2 / 3) / 2 + 1 + 1) / 3)  # class 0: first and third

    def test_a_class_that_cannot_be_predicted_counts_against(self) -> None:
        found = classes(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))
        assert found["f1_macro"] == pytest.approx((2 / 3 + 0) / 2)

    def test_one_class_has_no_area(self) -> None:
        assert "auc" not in classes(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]))


class TestLabels:
    def test_of_a_case_made_by_hand(self) -> None:
        truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
        said = np.array([[0.9, 0.2, 0.0], [0.4, 0.6, 0.1], [0.7, 0.1, 0.2]])
        found = labels(truth, said)
        assert found["accuracy"] == pytest.approx(1 / 3)  # only the first row is right in all
        assert found["f1_macro"] == pytest.approx((1 / 2 + 1) / 2)
        assert found["precision_micro"] == pytest.approx(2 / 3)
        assert found["recall_micro"] == pytest.approx(2 / 3)
        assert found["auc"] == pytest.approx((1 / 2 + 1) / 2)

    def test_a_single_label(self) -> None:
        found = labels(np.array([[1], [0], [1]]), np.array([[0.9], [0.8], [0.1]]))
        assert found["f1_macro"] == found["f1_micro"] == pytest.approx(2 / 4)

    def test_nothing_said_and_nothing_there(self) -> None:
        found = labels(np.zeros((2, 2)), np.zeros((2, 2)))
        assert (found["accuracy"], found["f1_macro"]) == (1, 0)


class TestProbabilities:
    def test_of_a_case_made_by_hand(self) -> None:
        found = probabilities(np.array([1, 0, 1, 0]), np.array([0.9, 0.6, 0.4, 0.1]))
        assert found["auc"] == pytest.approx(3 / 4)
        assert found["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
        assert found["precision"] == found["recall"] == found["f1"] == found["accuracy"] == 0.5
        assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean())
        assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)

    def test_equal_labels_cannot_be_told_apart(self) -> None:
        with pytest.raises(DataError, match="the same"):
            probabilities(np.ones(3), np.array([0.1, 0.2, 0.3]))


def test_numbers() -> None:
    found = numbers(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 5.0]))
    assert found == {"mse": pytest.approx(5 / 3), "mae": pytest.approx(1), "r2": pytest.approx(1 - 5 / 2)}
    assert numbers(np.ones(3), np.ones(3))["r2"] == 0


class TestLists:
    def test_equal_scores_share_their_places(self) -> None:
        """The relevant one is first or second, as if by lot: place 1.5, gain the mean of 1 and 1 / log2(3)."""
        found = lists(np.array([0.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.1]), np.zeros(3))
        assert found["mrr"] == pytest.approx(1 / 1.5)
        assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2)

    def test_is_what_scikit_learn_says_list_by_list(self) -> None:
        draw = np.random.default_rng(0)
        groups = draw.integers(30, size=600)
        truth = draw.integers(3, size=600) * (draw.random(600) < 0.3).astype(float)
        scores = np.round(draw.random(600), 1).astype(np.float32)
        rows = [groups == group for group in range(30) if truth[groups == group].any()]
        wanted = np.mean([ndcg_score(truth[row][None], scores[row][None], k=10) for row in rows])
        assert lists(truth, scores, groups)["ndcg@10"] == pytest.approx(wanted)

    def test_lists_that_tell_nothing_are_left_out(self) -> None:
        truth, scores = np.array([1.0, 0, 0, 0, 1]), np.array([1.0, 2, 3, 4, 5])
        assert lists(truth, scores, np.array([0, 0, 1, 1, 2])) == {
            "mrr": pytest.approx(1 / 2),
            "ndcg@10": pytest.approx(1 / np.log2(3)),
        }
        with pytest.raises(DataError, match="No list"):
            lists(truth, scores, np.arange(5))

    def test_many_lists_take_no_time(self) -> None:
        groups = np.arange(300_000) // 3
        found = lists(np.tile([0.0, 1, 0], 100_000), np.tile([0.1, 0.9, 0.5], 100_000), groups)
        assert found == {"ndcg@10": 1, "mrr": 1}


def test_places() -> None:
    found = places(np.array([1.0, 2, 10, 11]))
    assert found["recall@1"] == 0.25
    assert found["recall@10"] == 0.75
    assert found["mrr@10"] == pytest.approx((1 + 1 / 2 + 1 / 10) / 4)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(11)) / 4)


def test_nothing_to_measure_on() -> None:
    with pytest.raises(DataError, match="nothing to measure"):
        classes(np.zeros(0, int), np.zeros((0, 2)))
