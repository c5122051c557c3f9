import numpy as np
import pytest

from endcap.core.errors import CallerError
from endcap.evaluate.intervals import mean_interval, paired_difference, resampled_means


def test_interval_is_that_of_the_normal_law_for_many_queries():
    values = np.random.default_rng(0).normal(5, 2, 4000)
    found = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert found.mean == pytest.approx(values.mean())
    assert found.lo == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.hi == pytest.approx(found.mean + half, abs=0.1 * half)


def test_two_queries_have_three_means():
    # of two queries worth 0 and 1, resamples have the mean 0, 1/2 or 1 with the chances 1/4, 1/2 and 1/4
    means = resampled_means(np.array([0.0, 1.0]), resamples=4000)
    values, counts = np.unique(means, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_interval_covers_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(3)
    inside = 0
    for seed in range(200):
        found = mean_interval(draw.exponential(1, 100), seed=seed, resamples=300)
        inside += found.lo <= 1 <= found.hi
    assert 0.88 <= inside / 200 <= 0.98


def test_seed_decides():
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_equal_values_leave_no_doubt():
    found = mean_interval(np.full(30, 0.25))
    assert (found.mean, found.lo, found.hi) == (0.25, 0.25, 0.25)


def test_pairs_take_out_what_is_common():
    draw = np.random.default_rng(0)
    hardness = draw.normal(0, 1, 500)
    ours, theirs = hardness + 0.1 + draw.normal(0, 0.05, 500), hardness
    found = paired_difference(ours, theirs)
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.hi - found.lo < 0.02 < mean_interval(ours).hi - mean_interval(ours).lo
    assert found.p == 0
    assert paired_difference(theirs, ours).p == 1


def test_no_difference_is_no_gain():
    values = np.random.default_rng(0).random(100)
    found = paired_difference(values, values)
    assert (found.mean, found.lo, found.hi, found.p) == (0, 0, 0, 1)


def test_draws_are_shared_by_all_vectors_of_the_queries():
    draw = np.random.default_rng(0)
    left, right = draw.random(80), draw.random(80)
    both = resampled_means(np.stack([left, right], axis=1), seed=4, resamples=50)
    assert both.shape == (50, 2)
    assert both[:, 0] == pytest.approx(resampled_means(left, seed=4, resamples=50))
    assert both[:, 0] - both[:, 1] == pytest.approx(resampled_means(left - right, seed=4, resamples=50))


def test_many_queries_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("endcap.evaluate.intervals.DRAWS_AT_ONCE", 250)
    means = resampled_means(np.arange(100.0), resamples=7)
    assert means.shape == (7,)
    assert len(np.unique(means)) == 7


def test_queries_that_do_not_match_are_refused():
    with pytest.raises(CallerError, match="3 and 2 queries"):
        paired_difference(np.zeros(3), np.zeros(2))
    with pytest.raises(CallerError, match="no queries"):
        resampled_means(np.empty(0))
