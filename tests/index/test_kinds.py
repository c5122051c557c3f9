"""Items of equal vectors: found together, in order, and as the exact index finds them."""

import numpy as np
import pytest

from endcap.core.errors import ArtifactError
from endcap.index.exact import ExactIndex
from endcap.index.kinds import KindIndex, load_kinds, save_kinds
from endcap.testing import VectorIndexConformance


def kinds_of(vectors):
    kinds, kind_of = np.unique(vectors, axis=0, return_inverse=True)
    return np.ascontiguousarray(kinds), kind_of.astype(np.int32).reshape(-1)


class TestKindIndex(VectorIndexConformance):
    def make(self, vectors):
        kinds, kind_of = kinds_of(vectors)
        return KindIndex(ExactIndex(kinds), kind_of, vectors.shape[1])


@pytest.fixture(scope="module")
def repeated():
    draw = np.random.default_rng(3)
    return draw.standard_normal((40, 8)).astype(np.float32)[draw.integers(0, 40, 500)]


@pytest.mark.parametrize("k", [1, 7, 120, 500, 900])
def test_it_finds_what_the_exact_index_finds(repeated, tmp_path, k):
    kinds, kind_of = kinds_of(repeated)
    save_kinds(ExactIndex(kinds), kind_of, tmp_path)
    index, exact = load_kinds(tmp_path, lambda exact: exact), ExactIndex(repeated)
    for query in np.random.default_rng(4).standard_normal((5, 8)).astype(np.float32):
        for mine, theirs in zip(index.search(query, k), exact.search(query, k), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_kinds_that_are_not_there_are_refused(repeated, tmp_path):
    kinds, kind_of = kinds_of(repeated)
    save_kinds(ExactIndex(kinds[:-1]), kind_of, tmp_path)
    with pytest.raises(ArtifactError, match="not there"):
        load_kinds(tmp_path, lambda exact: exact)
