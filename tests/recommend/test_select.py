"""Places on a slate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap.core.types import Query
from endcap.recommend.select import Best, NewItems
from endcap.testing import SelectorConformance

NOBODY = np.empty(0, np.int32)


class TestBest(SelectorConformance):
    def make(self):
        return Best()


class TestNewItems(SelectorConformance):
    def make(self):
        return NewItems(np.arange(1000) % 7 == 0, 3)


def slate(ranked, new, every, n=10):
    mask = np.isin(np.arange(50), list(new))
    kept = NewItems(mask, every).select(Query(n=n), np.array(ranked, np.int32), NOBODY)
    return Best().select(Query(n=n), np.array(ranked, np.int32), kept).tolist()


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (5, [0, 1, 2, 3, 20, 4, 5, 6, 7, 21]),
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 20]),
        (1, [20, 21, 22, 0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_places_are_kept_for_the_best_ranked_new_items(every, expected):
    assert slate(range(30), {20, 21, 22}, every) == expected


def test_a_new_item_that_stands_high_takes_the_place_that_is_kept():
    assert slate(range(30), {2, 20, 25}, 5) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 20]


def test_without_new_items_the_best_stand():
    assert slate(range(30), set(), 2) == list(range(10))


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)), st.integers(1, 6), st.integers(1, 12))
def test_the_order_of_old_and_of_new_items_stays(ranked, new, every, n):
    found = slate(ranked, new, every, n)
    assert len(found) == len(set(found)) == n
    for kind in (True, False):
        chosen = [item for item in found if (item in new) == kind]
        assert chosen == [item for item in ranked if (item in new) == kind][: len(chosen)]
    for places in range(1, n + 1):
        assert sum(item in new for item in found[:places]) >= min(places // every, len(new))
