"""Approximate search against the exact one: who is found, how many, and that it comes back from disk."""

import json

import numpy as np
import pytest

from endcap.core.errors import ArtifactError
from endcap.index.approximate import AT, RECALL, WIDE, ApproximateIndex
from endcap.index.build import IndexConfig, build_index, open_index, save_index
from endcap.index.exact import ExactIndex
from endcap.testing import VectorIndexConformance

pytest.importorskip("faiss")


def clustered(n: int, d: int = 24, around: int = 200, seed: int = 0) -> np.ndarray:
    """Rows as items have them: many near few centres."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((around, d))
    return (centres[draw.integers(0, around, n)] + 0.5 * draw.standard_normal((n, d))).astype(np.float32)


@pytest.fixture(scope="module")
def rows():
    return clustered(20_000)


@pytest.fixture(scope="module")
def index(rows):
    return ApproximateIndex.build(rows)


class TestApproximateIndex(VectorIndexConformance):
    min_recall = 0.8  # the suite's rows lie anywhere, in no clusters that lists could follow

    def make(self, vectors):
        return ApproximateIndex.build(vectors)


def test_it_finds_nearly_all_that_are_nearest(rows, index):
    queries = clustered(100, seed=1)
    exact = ExactIndex(rows)
    found = [len(set(index.search(q, AT)[0]) & set(exact.search(q, AT)[0])) / AT for q in queries]
    assert index.recall >= RECALL
    assert np.mean(found) > 0.97


def test_it_reads_few_of_the_rows(index):
    assert index._read <= index._lists.nlist / 4


def test_equal_rows_do_not_make_it_read_more():
    draw, d = np.random.default_rng(1), WIDE + 32
    titles = np.repeat(clustered(60, d), 30, axis=0) + 0.4 * draw.standard_normal((1800, d)).astype(np.float32)
    alike = ApproximateIndex.build(titles[draw.integers(0, len(titles), 15_000)])
    assert alike.recall >= RECALL
    assert alike._read <= alike._lists.nlist / 4


def test_scores_are_the_rows_own(rows, index):
    query = rows[7]
    items, scores = index.search(query, 50)
    np.testing.assert_array_equal(scores, ExactIndex(rows).at(query, items))
    assert (np.diff(scores) <= 0).all()
    assert len(set(items.tolist())) == 50


@pytest.mark.parametrize("k", [1, 99, 5_000, 20_000, 30_000])
def test_as_many_are_found_as_are_asked_for(rows, index, k):
    items, _ = index.search(rows[0], k)
    assert len(set(items.tolist())) == min(k, len(rows))


def test_equal_rows_stand_in_order(rows):
    index = ApproximateIndex.build(np.vstack([rows[:3000], np.tile(rows[0], (40, 1))]))
    items, _ = index.search(rows[0], 41)
    assert items.tolist() == [0, *range(3000, 3040)]


def test_it_comes_back_from_disk(rows, index, tmp_path):
    save_index(index, tmp_path / "index")
    back = open_index(ExactIndex(rows), tmp_path / "index")
    assert isinstance(back, ApproximateIndex)
    assert back.recall == index.recall
    for query in rows[:20]:
        np.testing.assert_array_equal(back.search(query, 30)[0], index.search(query, 30)[0])


def test_other_vectors_and_damaged_files_are_refused(rows, index, tmp_path):
    save_index(index, tmp_path / "index")
    with pytest.raises(ArtifactError, match="not those"):
        open_index(ExactIndex(rows[1:]), tmp_path / "index")
    (tmp_path / "index" / "lists.faiss").write_bytes(b"IwSQ, and no more")
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_index(ExactIndex(rows), tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text(json.dumps({"rows": 1}))
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_index(ExactIndex(rows), tmp_path / "index")


def test_a_small_shop_is_searched_exactly(rows, tmp_path):
    config = IndexConfig(exact_up_to=1000)
    assert isinstance(build_index(rows[:1000], config, 1000), ExactIndex)
    assert isinstance(build_index(rows[:1001], config, 1001), ApproximateIndex)
    assert isinstance(build_index(rows[:500], config, 1001), ApproximateIndex), "it is the items that count"
    save_index(build_index(rows[:1000], config, 1000), tmp_path / "index")
    assert isinstance(open_index(ExactIndex(rows[:1000]), tmp_path / "index"), ExactIndex)


def test_lists_that_hold_too_few_count_as_not_found_when_they_are_measured(rows):
    index = ApproximateIndex.build(rows[:3000])  # some twelve rows a list: fewer than the hundred that are looked for
    queries = index._queries(1)
    exact = ExactIndex(rows[:3000])
    hits = [np.isin(index.search(query, 20)[0], exact.search(query, 20)[0]).mean() for query in queries]
    assert np.mean(hits) > 0.97
    assert index._read > 1
