"""A second look reorders the top and nothing else; without anything to read, nothing at all."""

import numpy as np
import pytest

from endcap.core.errors import ServiceError
from endcap.core.types import Query
from endcap.recommend.second_look import READ, SecondLook, Weights, acted_on, scarcity, standardised
from endcap.testing import FakeJudge, a_context, a_stranger

TEXTS = ["green tea", "black tea", "oat milk", "running shoes", "white tea", "", "tea pot", "soap"]
ITEMS = np.array([3, 2, 1, 0, 7, 4, 6], np.int32)
SCORES = np.array([5, 4, 3.5, 3, 2, 1, 0], np.float32)


class Asked(FakeJudge):
    """Keeps what it was asked."""

    def __init__(self, told=None):
        self.asked, self.told = [], told

    def judge(self, history, candidates):
        self.asked.append((list(history), list(candidates)))
        return super().judge(history, candidates) if self.told is None else np.array(self.told, np.float32)


def looked(weights, items=ITEMS, scores=SCORES, context=None, judge=None):
    look = SecondLook(judge or FakeJudge(), TEXTS, weights)
    return look.look(a_context([4]) if context is None else context, items, scores)


def test_only_the_top_is_put_into_a_new_order():
    order, scores = looked(Weights(top=4, always=10))
    assert ITEMS[order].tolist() == [1, 0, 3, 2, 7, 4, 6]
    assert scores[3:].tolist() == [3, 2, 1, 0]
    assert (np.diff(scores) <= 0).all()
    assert scores.dtype == np.float32


def test_the_score_is_the_rankers_and_the_judges_each_in_standard_deviations():
    weights = Weights(top=4, always=0.5, scarce=0.7)
    order, scores = looked(weights, context=a_context([4, 7]))
    said = FakeJudge().judge(["white tea", "soap"], [TEXTS[item] for item in ITEMS[:4]])
    expected = standardised(SCORES[:4]) + (0.5 + 0.7 / (1 + np.log1p(2))) * standardised(said)
    assert order[:4].tolist() == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose(np.diff(scores[:4]), np.diff(np.sort(expected)[::-1]) * SCORES[:4].std(), rtol=1e-5)


def test_a_judge_without_weight_is_not_asked():
    judge = Asked()
    assert looked(Weights(top=10), judge=judge) is None
    assert judge.asked == []


def test_equal_scores_stand_in_the_order_of_the_items():
    order, scores = looked(Weights(top=4, always=1), scores=np.zeros(7, np.float32))
    assert ITEMS[order].tolist() == [0, 1, 2, 3, 7, 4, 6]
    assert scores[0] == scores[1] > scores[2] == scores[3] == scores[4] == 0


@pytest.mark.parametrize("context", [a_stranger(), a_context([5]), a_context(cart=[0]), a_context([5], anchor=1)])
def test_with_nothing_to_read_nothing_changes(context):
    judge = Asked()
    assert looked(Weights(always=10), context=context, judge=judge) is None
    assert judge.asked == []


@pytest.mark.parametrize("items", [[], [3], [3, 5]])
def test_with_nothing_to_compare_nothing_changes(items):
    assert looked(Weights(always=10), np.array(items, np.int32), SCORES[: len(items)]) is None


def test_what_has_no_text_is_not_asked_about_and_stays_in_the_middle():
    judge = Asked()
    order, _ = looked(Weights(always=10), np.array([3, 5, 1], np.int32), SCORES[:3], judge=judge)
    assert judge.asked == [(["white tea"], ["running shoes", "black tea"])]
    assert order.tolist() == [2, 1, 0]


def test_the_last_texts_are_read_oldest_first():
    judge = Asked()
    looked(Weights(always=1), context=a_context([7, 0, 1, 5, 2]), judge=judge)
    assert judge.asked[0][0] == ["green tea", "black tea", "oat milk"]
    assert READ == 3


def test_looks_are_read_where_nothing_was_bought():
    assert acted_on(a_context(viewed=[2, 0])).tolist() == [2, 0]
    assert acted_on(a_context([1] * 30, viewed=[2, 0])).tolist() == [1] * 30


def test_a_long_history_makes_the_judge_weigh_less():
    weights = Weights(always=0.1, scarce=1.0)
    assert [round(scarcity(acts), 2) for acts in (0, 1, 3, 8)] == [1, 0.59, 0.42, 0.31]
    assert weights.of(1) == pytest.approx(0.1 + scarcity(1))
    assert weights.of(20) < weights.of(2)
    assert Weights(always=-0.5, scarce=1.0).of(20) == 0 < Weights(always=-0.5, scarce=1.0).of(1)


@pytest.mark.parametrize("told", [[1.0], [np.nan] * 7])
def test_a_judge_that_gives_no_numbers_is_an_error(told):
    with pytest.raises(ServiceError, match="no number"):
        looked(Weights(always=1), judge=Asked(told))


def judged_by(judge, **weights):
    texts = [*(f"thing {place}" for place in range(11)), "what was bought"]
    return SecondLook(judge, texts, Weights(**weights))


def test_answers_and_rankings_are_in_its_order(small_pipeline):
    plain = small_pipeline()
    pipeline = small_pipeline(second_look=judged_by(Liking("thing 2"), top=4, always=9))
    query, context = Query(n=5), a_context([11])
    before, after = (one.rank([(query, context), (query, a_stranger())]) for one in (plain, pipeline))
    assert 2 in before[0].items[:4]
    assert after[0].items[0] == 2 != before[0].items[0]
    assert sorted(after[0].items[:4]) == sorted(before[0].items[:4])
    np.testing.assert_array_equal(after[0].items[4:], before[0].items[4:])
    np.testing.assert_array_equal(after[0].candidates.items[after[0].rows], after[0].items)
    np.testing.assert_array_equal(after[1].items, before[1].items)
    slate, degraded = pipeline.answer(query, context)
    assert slate[0].item_id == "i02"
    assert degraded == ()
    assert pipeline.answer(query, context)[0] == slate


def test_if_it_fails_the_order_stays_and_the_answer_says_so(small_pipeline, caplog):
    pipeline = small_pipeline(second_look=judged_by(Broken(), always=9))
    slate, degraded = pipeline.answer(Query(n=5), a_context([11]))
    assert degraded == ("judge",)
    assert slate == small_pipeline().answer(Query(n=5), a_context([11]))[0]
    assert "The judge failed" in caplog.text


class Liking:
    def __init__(self, text):
        self.text = text

    def judge(self, history, candidates):
        return np.array([candidate == self.text for candidate in candidates], np.float32)


class Broken:
    def judge(self, history, candidates):
        raise RuntimeError("the graph is damaged")
