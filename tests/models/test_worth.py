"""Two sources of which one is told the answer, or is not."""

import numpy as np
import pytest

from endcap.core.errors import CallerError
from endcap.models.crossfit import Examples, dcg, folds, ideal
from endcap.models.ranker import RankerConfig
from endcap.models.ranker_fit import fit_ranker, try_ranker
from endcap.models.worth import without, worth

NAMES = ("score_plain", "score_other", "rank_plain", "rank_other", "proposed_by")
PER_SOURCE = 5
CONFIG = RankerConfig(rounds=20, min_leaf=5)


def examples(*, told: bool, queries: int = 400) -> Examples:
    """Eight candidates a query; `plain` says nothing of the target. `other` gives it away where `told`."""
    draw = np.random.default_rng(0)
    n = queries * 8
    labels = np.zeros(n, np.int8)
    labels[np.arange(queries) * 8 + draw.integers(0, 8, queries)] = 1
    features = np.column_stack([draw.random((n, 2)), draw.integers(0, 5, (n, 2)), np.full(n, 2)]).astype(np.float32)
    if told:
        features[:, 1] = labels + draw.random(n) * 0.1
    return Examples(features, labels, np.full(queries, 8, np.int64), np.arange(queries, dtype=np.int64))


def judged(found: Examples):
    fewer, names = without(found, NAMES, "other", PER_SOURCE)
    whole = try_ranker(found, NAMES, CONFIG, seed=0, threads=2)
    lean = try_ranker(fewer, names, CONFIG, seed=0, threads=1)
    return worth("other", whole.gains, lean.gains, found)


def test_a_source_that_knows_stays():
    verdict = judged(examples(told=True))
    assert verdict.stays
    assert verdict.gain > 0.2
    assert "stays" in str(verdict)


def test_a_source_that_says_nothing_goes():
    verdict = judged(examples(told=False))
    assert not verdict.stays
    assert "left out" in str(verdict)


def test_targets_that_the_source_alone_proposes_are_misses_without_it():
    found = examples(told=False)
    rows = np.flatnonzero(found.labels)[::2]
    found.features[rows, 2], found.features[rows, 4] = PER_SOURCE, 1
    assert judged(found).stays


def test_without_a_source_its_own_proposals_are_gone():
    found = examples(told=False, queries=2)
    found.features[:, 4] = 1
    found.features[9:, 3] = PER_SOURCE
    fewer, names = without(found, NAMES, "other", PER_SOURCE)
    # it alone proposed the whole first query and the first row of the second
    assert fewer.sizes.tolist() == [0, 7]
    assert names == ("score_plain", "rank_plain", "proposed_by")
    assert fewer.features[:, 2].tolist() == [1] * 7
    assert found.features[0, 4] == 1


def test_the_gain_is_compared_by_query():
    verdict = judged(examples(told=True))
    # a random order of 8 has NDCG@10 of about .54, a perfect one 1
    assert verdict.gain == pytest.approx(0.46, abs=0.1)
    assert 0 < verdict.error < 0.1


def test_every_user_is_in_one_fold_and_the_folds_are_even():
    found = examples(told=True)
    shared = Examples(found.features, found.labels, found.sizes, found.users // 4)
    fold = folds(shared, 3, seed=1)
    assert [len(set(fold[shared.users == user].tolist())) for user in range(100)] == [1] * 100
    assert sorted((np.bincount(fold) // 4).tolist()) == [33, 33, 34]
    with pytest.raises(CallerError, match="one user"):
        folds(Examples(found.features, found.labels, found.sizes, found.users * 0), 3, seed=1)


def test_a_trial_is_judged_on_users_it_has_not_seen():
    """Features of nothing but noise can be learned by heart, and tell nothing of anybody else."""
    found = examples(told=False)
    noise = np.random.default_rng(1).random((len(found.labels), 30)).astype(np.float32)
    names = [f"noise_{column}" for column in range(30)]
    by_heart = Examples(noise, found.labels, found.sizes, found.users)
    config = RankerConfig(rounds=60, min_leaf=1, l2=0, leaves=63, row_share=1, feature_share=1, learning_rate=0.3)
    blind = try_ranker(by_heart, names, config, seed=0, threads=1)
    assert (blind.gains / ideal(by_heart)).mean() < 0.65
    learned = fit_ranker(by_heart, names, config, 60, seed=0, threads=1).predict(noise)
    assert (dcg(learned, by_heart) / ideal(by_heart)).mean() > 0.9


def test_as_many_trees_are_grown_as_did_best_over_the_folds():
    found = examples(told=True)
    trial = try_ranker(found, NAMES, CONFIG, seed=0, threads=2)
    assert 1 <= trial.trees <= CONFIG.rounds
    assert (trial.gains == try_ranker(found, NAMES, CONFIG, seed=0, threads=1).gains).all()
