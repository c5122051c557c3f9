import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap.core.ranking import among, best_positions, threshold


@pytest.mark.parametrize("n", [0, 1, 9, 1000, 50_000])
@pytest.mark.parametrize("k", [0, 1, 7, 100])
@pytest.mark.parametrize("levels", [3, 10_000])
def test_agrees_with_sorting_everything(n, k, levels):
    scores = np.random.default_rng(n + k).integers(0, levels, n).astype(np.float32)
    assert best_positions(scores, k).tolist() == np.lexsort((np.arange(n), -scores))[:k].tolist()


def test_threshold_is_reached_by_k_and_not_many_more():
    scores = np.random.default_rng(0).random(90_000).astype(np.float32)
    reached = int((scores >= threshold(scores, 100)).sum())
    assert 100 <= reached < 130


def test_above_leaves_the_rest_out_however_many_are_asked_for():
    scores = np.zeros(90_000, np.float32)
    scores[[7, 80_000, 3]] = [1, 2, 1]
    assert best_positions(scores, 100, above=0).tolist() == [80_000, 3, 7]
    assert best_positions(scores, 2, above=0).tolist() == [80_000, 3]


@given(st.lists(st.integers(0, 40), max_size=60), st.lists(st.integers(0, 40), max_size=8, unique=True))
def test_among_is_isin(items, few):
    items, few = np.array(items, np.int32), np.sort(np.array(few, np.int32))
    assert among(items, few).tolist() == np.isin(items, few).tolist()
