"""What the benchmark of the judge reads, and what it asks."""

import numpy as np
import pytest
from benchmarks.bench_judge import Lines, Once, as_known, lists_of, pairs_of

from endcap.app.tasks import Question
from endcap.core.types import Query
from endcap.testing import FakeJudge, a_context


@pytest.fixture
def lines(tmp_path):
    users = [f"u{user} " + " ".join(f"{(user + step) % 30}" for step in range(8)) for user in range(60)]
    (tmp_path / "sequences.txt").write_text("\n".join(users))
    rows = [f'{{"id": {item}, "title": "thing {item}", "keywords": ""}}' for item in range(30)]
    (tmp_path / "items.jsonl").write_text("\n".join(rows))
    return Lines.read(tmp_path)


def test_the_last_two_acts_are_not_read(lines):
    texts = [[lines.texts[item] for item in line] for line in lines.items]
    assert ["thing 3", "thing 4", "thing 5", "thing 6", "thing 7", "thing 8"] in texts
    assert {len(line) for line in lines.items} == {6}
    assert lines.sold.sum() == 60 * 6


def test_a_list_holds_what_was_taken_and_four_that_never_were(lines):
    frame = lists_of(lines, np.arange(60), "train", 0)
    for (group,), rows in frame.group_by("group"):
        own = {lines.texts[item] for item in lines.items[int(group.split()[1])]}
        assert rows["label"].to_list() == [1, 0, 0, 0, 0]
        assert [text in own for text in rows["candidate"]] == [True, False, False, False, False]
        assert set(rows["anchor"][0]) <= own
    assert {len(anchor) for anchor in frame["anchor"]} == {1, 2, 3}


def test_validation_asks_for_the_last_act_alone(lines):
    assert pairs_of(lines, np.arange(60), "train").height == 60 * 5
    assert pairs_of(lines, np.arange(60), "valid").height == 60


def test_a_question_can_be_asked_as_if_little_were_known():
    asked = Question(Query(), a_context([4, 2, 7]), np.array([1], np.int32), 0)
    known = as_known(asked, 2).context
    assert known.items.tolist() == [2, 7]
    assert known.bought.tolist() == [2, 7]
    assert as_known(asked, None) is asked


def test_the_same_question_is_asked_once():
    asked = []

    class Counting(FakeJudge):
        def judge(self, history, candidates):
            asked.append(history)
            return super().judge(history, candidates)

    once = Once(Counting())
    first = once.judge(["a b"], ["a", "b c"])
    np.testing.assert_array_equal(once.judge(["a b"], ["a", "b c"]), first)
    once.judge(["a"], ["b", "a"])
    assert len(asked) == 2
