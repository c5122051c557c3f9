import json

import numpy as np
import pytest

from endcap.core.errors import ArtifactError, CallerError
from endcap.index.exact import ExactIndex
from endcap.testing import VectorIndexConformance


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


class TestExactIndex(VectorIndexConformance):
    def make(self, vectors):
        return ExactIndex(vectors)


class TestMappedIndex(VectorIndexConformance):
    """The same from a memory map."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def make(self, vectors):
        ExactIndex(vectors).save(self.folder)
        return ExactIndex.load(self.folder)


def test_known_neighbours():
    index = ExactIndex(np.array([[1, 0], [0, 1], [2, 0], [1, 0]], np.float32))
    items, scores = index.search(np.array([1, 0.5], np.float32), 3)
    assert items.tolist() == [2, 0, 3]
    assert scores.tolist() == [2, 1, 1]


@pytest.mark.parametrize(("n", "d"), [(1001, 384), (333, 7), (5000, 33)])
def test_equal_rows_tie_wherever_they_lie(n, d):
    # a matrix product gives equal rows different last bits, depending on their place
    row, query = vectors(2, d)
    index = ExactIndex(np.tile(row, (n, 1)))
    items, scores = index.search(query, 20)
    assert items.tolist() == list(range(20))
    assert len(set(scores.tolist())) == 1


def test_every_way_of_asking_gives_the_same_score(monkeypatch):
    monkeypatch.setattr("endcap.index.exact.SCORES_AT_ONCE", 1500)
    rows, queries = vectors(500, 96), vectors(11, 96, seed=1)
    index = ExactIndex(rows)
    items, scores = index.search_many(queries, 30)
    assert items.dtype == np.int32
    assert scores.dtype == np.float32
    for query, many_items, many_scores in zip(queries, items, scores, strict=True):
        one_items, one_scores = index.search(query, 30)
        assert many_items.tolist() == one_items.tolist()
        assert many_scores.tolist() == one_scores.tolist()
        assert index.at(query, one_items[::-1]).tolist() == one_scores[::-1].tolist()


def test_few_rows_and_no_rows():
    index = ExactIndex(vectors(3, 4))
    assert index.search(vectors(1, 4)[0], 10)[0].shape == (3,)
    assert index.search(vectors(1, 4)[0], 0)[0].shape == (0,)
    assert index.search_many(vectors(2, 4), 10)[0].shape == (2, 3)
    nothing = ExactIndex(np.empty((0, 4), np.float32))
    assert len(nothing) == 0
    assert nothing.search(vectors(1, 4)[0], 5)[1].shape == (0,)
    assert nothing.search_many(vectors(2, 4), 5)[0].shape == (2, 0)


def test_zero_query_takes_rows_in_order():
    items, scores = ExactIndex(vectors(50, 8)).search(np.zeros(8, np.float32), 4)
    assert items.tolist() == [0, 1, 2, 3]
    assert scores.tolist() == [0, 0, 0, 0]


def test_saved_index_is_mapped_and_answers_alike(tmp_path):
    index = ExactIndex(vectors(200, 16))
    index.save(tmp_path)
    loaded = ExactIndex.load(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "vectors.npy"]
    assert isinstance(loaded._vectors.base, np.memmap)
    query = vectors(1, 16, seed=2)[0]
    assert loaded.search(query, 9)[0].tolist() == index.search(query, 9)[0].tolist()


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    ExactIndex(vectors(20, 4)).save(tmp_path)
    about = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**about, "rows": 21}))
    with pytest.raises(ArtifactError, match="not those"):
        ExactIndex.load(tmp_path)


def test_objects_are_never_unpickled(tmp_path):
    ExactIndex(vectors(20, 4)).save(tmp_path)
    np.save(tmp_path / "vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="memory-mapped"):
        ExactIndex.load(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((3, 4)), np.zeros(4, np.float32), np.full((3, 4), np.nan, np.float32)],
    ids=["float64", "one row", "nan"],
)
def test_vectors_of_another_kind_are_refused(bad):
    with pytest.raises(CallerError):
        ExactIndex(bad)


@pytest.mark.parametrize(
    "bad",
    [np.zeros(5, np.float32), np.zeros((1, 4), np.float32), np.zeros(4), np.full(4, np.inf, np.float32)],
    ids=["other dim", "matrix", "float64", "infinite"],
)
def test_queries_of_another_kind_are_refused(bad):
    with pytest.raises(CallerError):
        ExactIndex(vectors(3, 4)).search(bad, 2)
