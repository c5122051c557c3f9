"""Sums over few entries of a large catalogue are those over all of it, however they are made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap.index.exact import ExactIndex
from endcap.models import evidence
from endcap.models.content import ContentSource
from endcap.models.evidence import SparseEvidence, summed, summed_many
from endcap.testing import a_context

N = 400


@st.composite
def entries(draw):
    """Whose (ascending), where and how much, of some contexts: few entries, or so many that all places are summed."""
    n_rows = draw(st.integers(1, 6))
    count = draw(st.sampled_from([0, 1, 30, N]))
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = np.sort(seed.integers(0, n_rows, count))
    return n_rows, rows, seed.integers(0, N, count).astype(np.int32), seed.integers(1, 9, count).astype(np.float32)


@given(entries(), st.booleans(), st.booleans())
def test_what_entries_add_up_to(drawn, is_spread, one_by_one):
    n_rows, rows, places, values = drawn
    items = np.arange(N, dtype=np.int32) * 3 + 1 if is_spread else None
    everything = np.arange(3 * N + 2, dtype=np.int32) if is_spread else np.arange(N, dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        if one_by_one:
            patch.setattr(evidence, "TOGETHER_AT_MOST", 0)
        together = summed_many(rows, places, values, n_rows, N, items)
    assert len(together) == n_rows
    for row, one in enumerate(together):
        own = rows == row
        wanted = np.zeros(len(everything), np.float32)
        np.add.at(wanted, places[own] if items is None else items[places[own]], values[own])
        for said in (one, summed(places[own], values[own], N, items)):
            np.testing.assert_array_equal(said.at(everything), wanted)
            best, scores = said.top(10)
            np.testing.assert_array_equal(scores, wanted[best])
            np.testing.assert_array_equal(best, np.lexsort((everything, -wanted))[: min(10, np.count_nonzero(wanted))])


def test_asking_leaves_nothing_behind():
    held = np.array([2, 5, 900], np.int32)
    said = SparseEvidence(held, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(said.at(np.array([900, 0, 5], np.int32)), [3, 0, 2])
    other = SparseEvidence(np.array([0], np.int32), np.array([7.0]))
    np.testing.assert_array_equal(other.at(np.array([0, 2, 5, 900, 5000], np.int32)), [7, 0, 0, 0, 0])


@pytest.mark.parametrize("sizes", [[1] * 200, [50, 1, 1, 1, 1, 1, 60], [1, 1, 1, 200, 1, 1]])
@pytest.mark.parametrize("k", [1, 10, 75])
def test_the_best_items_of_few_kinds_and_of_many(sizes, k):
    draw = np.random.default_rng(len(sizes))
    kinds = draw.normal(size=(len(sizes), 8)).astype(np.float32)
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    vectors = kinds.repeat(sizes, axis=0)[draw.permutation(sum(sizes))]
    source = ContentSource.of(vectors, ExactIndex)
    said = source.weigh(a_context([3]))
    marks = said.at(np.arange(len(vectors), dtype=np.int32))
    best, scores = said.top(k)
    wanted = np.lexsort((np.arange(len(marks)), -marks))
    wanted = wanted[marks[wanted] > 0][:k]
    np.testing.assert_array_equal(best, wanted)
    np.testing.assert_array_equal(scores, marks[wanted])
