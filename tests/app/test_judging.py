"""A judge stays where it knows what the ranker does not, and goes where it says nothing; and what is said of it."""

import numpy as np
import pytest

from endcap.app.config import JudgeConfig
from endcap.app.finetune_data import examples_of
from endcap.app.judging import Top, check, fit_weights, halves, listen, ndcg, told, tried
from endcap.app.tasks import successes
from endcap.core.errors import CallerError
from endcap.data.split import split_by_time
from endcap.models.finetune.config import FinetuneConfig
from endcap.recommend.second_look import Heard, SecondLook, Weights
from endcap.testing import a_context

CONFIG = JudgeConfig(model="runs/x")
M, USERS = 10, 400
HALF = halves(USERS, 0)


def planted(knows, seed=0, users=USERS):
    """Rankings whose target is where neither alone says: half by the ranker's score, half by what the judge may know.
    knows: acts -> how well it does."""
    draw = np.random.default_rng(seed)
    found, heard = [], []
    for user in range(users):
        acts = int(draw.integers(1, 12))
        scores, meaning = np.sort(draw.normal(size=M))[::-1].astype(np.float32), draw.normal(size=M)
        labels = np.zeros(M, bool)
        labels[np.argmax(scores + meaning + draw.gumbel(size=M) / 2)] = True
        said = knows(acts) * meaning + (1 - knows(acts)) * draw.normal(size=M)
        found.append(Top(user, acts, np.arange(M, dtype=np.int32), scores, labels, 1.0, 0.0, a_context([1])))
        heard.append(Heard((said - said.mean()) / said.std(), acts))
    return found, heard


def test_a_judge_that_knows_stays():
    trial = tried(*planted(lambda acts: 1.0), HALF, CONFIG, 0)
    assert trial.stays
    assert trial.with_it - trial.without == pytest.approx(trial.gain.mean)
    assert trial.gain.mean > 0.1
    assert 0.6 < trial.weights.of(4) < 1.5
    assert list(trial.by_length) == ["1", "2 to 3", "4 to 7", "8 and more"]
    assert sum(n for _, n in trial.by_length.values()) == trial.queries == trial.users == trial.heard == USERS
    said = told("runs/x", trial)
    assert said.startswith(f"The cross-encoder in runs/x stays: NDCG@10 {trial.with_it:.4f} with, {trial.without:.4f}")
    assert "By acts before, with queries in brackets, 1: +0." in said
    assert "beside the ranker's 1" in said


def test_a_judge_that_is_noise_stays_out_and_the_note_says_by_how_much():
    trial = tried(*planted(lambda acts: 0.0), HALF, CONFIG, 0)
    assert not trial.stays
    assert abs(trial.weights.of(3)) < 0.2
    said = told("runs/x", trial)
    assert said.startswith(
        f"The cross-encoder in runs/x stays out: NDCG@10 {trial.with_it:.4f} with, {trial.without:.4f}"
    )
    assert f"95 % interval {trial.gain.lo:+.4f} to {trial.gain.hi:+.4f}" in said
    assert "It weighs" not in said


def test_one_that_knows_newcomers_only_weighs_less_the_more_is_known():
    found, heard = planted(lambda acts: float(acts <= 2), users=2000)
    weights = fit_weights(list(zip(found, heard, strict=True)), M)
    assert weights.scarce > 0
    assert weights.of(1) > 0.3 > weights.of(11)
    trial = tried(found, heard, halves(2000, 0), CONFIG, 0)
    assert trial.by_length["1"][0] > 0.05 > trial.by_length["8 and more"][0]


def test_what_has_no_target_at_the_top_counts_as_it_was():
    found, heard = planted(lambda acts: 1.0)
    missed = [
        Top(user, 3, np.arange(M, dtype=np.int32), np.zeros(M, np.float32), np.zeros(M, bool), 1.0, 0.2, None)
        for user in range(USERS)
    ]
    whole = tried(found, heard, HALF, CONFIG, 0)
    half = tried([*found, *missed], [*heard, *[None] * USERS], HALF, CONFIG, 0)
    assert half.gain.mean == pytest.approx(whole.gain.mean / 2)
    assert half.without == pytest.approx((whole.without + 0.2) / 2)
    assert half.weights == whole.weights
    assert (half.queries, half.users, half.heard) == (2 * USERS, USERS, USERS)


def test_the_order_that_is_tried_is_the_one_that_is_served():
    found, heard = planted(lambda acts: 0.5, users=20)
    weights = Weights(M, 0.3, 0.9)
    for top, said in zip(found, heard, strict=True):

        class Says:
            def judge(self, history, candidates, said=said):
                return said.z.astype(np.float32)

        look = SecondLook(Says(), ["text"] * M, weights)
        context = a_context([0] * said.acts)
        order, _ = look.look(context, top.items, top.scores)
        place = int(np.flatnonzero(top.labels[order])[0])
        assert ndcg(top, said, weights) == pytest.approx(1 / np.log2(place + 2))
        assert look.hear(context, top.items).acts == said.acts


def test_only_what_it_could_change_is_asked_of_it():
    found, _ = planted(lambda acts: 1.0, users=3)
    found[1] = Top(1, 3, found[1].items, found[1].scores, found[1].labels, 1.0, 0.0, None)
    asked = []

    class Counting:
        def judge(self, history, candidates):
            asked.append(history)
            return np.arange(len(candidates), dtype=np.float32)

    heard = listen(SecondLook(Counting(), ["text"] * M, Weights()), found, 1, lambda share: None)
    assert [said is None for said in heard] == [False, True, False]
    assert len(asked) == 2


@pytest.mark.parametrize("kind", ["interest", "ranking", "pairs"])
def test_what_a_shop_gives_to_learn_from_and_to_choose_by_is_older_than_what_the_judge_is_tried_on(shop, kind):
    bought = successes(shop.store.events())
    split = split_by_time(bought, shop.config.train.shares)
    told = examples_of(shop, FinetuneConfig.model_validate({"task": {"kind": kind}}))
    parts = {name[0]: rows["ts_ms"] for name, rows in told.group_by("part")}
    assert parts["train"].max() < parts["valid"].min() <= parts["valid"].max() < split.validation_from_ms
    assert split.test_from_ms <= parts["test"].min()


def test_a_part_may_be_left_empty(shop):
    whole = FinetuneConfig.model_validate({"task": {"kind": "pairs"}, "split": {"shares": [0.8, 0.2, 0.0]}})
    assert set(examples_of(shop, whole)["part"]) == {"train", "valid"}
    unchosen = FinetuneConfig.model_validate({"task": {"kind": "pairs"}, "split": {"shares": [0.8, 0.0, 0.2]}})
    assert set(examples_of(shop, unchosen)["part"]) == {"train", "test"}


def test_a_folder_without_a_run_is_told_before_anything_else(tmp_path):
    with pytest.raises(CallerError, match=r"judge\.model: There is no finished run in .*gone"):
        check(tmp_path / "gone")
