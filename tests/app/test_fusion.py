"""Ranker or blend: whichever does better on users left out, and what is said of it."""

import numpy as np
import pytest

from endcap.app.config import Config
from endcap.app.fusion import Fusion, fuse
from endcap.models.blend import Blend
from endcap.models.crossfit import Examples
from endcap.models.ranker import Ranker
from endcap.recommend.candidates import Shortlist

NAMES = (
    "score_a",
    "score_sequence",
    "rank_a",
    "rank_sequence",
    "share_a",
    "share_sequence",
    "proposed_by",
    "price",
)
CANDIDATES = 10


def asked(queries, rule):
    """Targets are the candidates that a rule over (share of a, share of sequence, price) likes best."""
    draw = np.random.default_rng(0)
    n = queries * CANDIDATES
    shares, price = draw.random((n, 2)), draw.random(n)
    liked = rule(shares[:, 0], shares[:, 1], price).reshape(queries, CANDIDATES).argmax(axis=1)
    labels = np.zeros((queries, CANDIDATES), np.int8)
    labels[np.arange(queries), liked] = 1
    ranks = draw.integers(0, 5, (n, 2))
    features = np.column_stack([shares, ranks, shares, np.full(n, 2), price]).astype(np.float32)
    sizes = np.full(queries, CANDIDATES, np.int64)
    return Examples(features, labels.ravel(), sizes, np.arange(queries, dtype=np.int64))


def fused(examples, **ranker):
    config = Config.model_validate({"ranker": {"min_leaf": 5, **ranker}, "train": {"optional": ["sequence"]}})
    told = []
    found = fuse(examples, NAMES, config, told.append)
    assert told == sorted(told)
    return found


def test_a_ranker_is_taken_where_more_than_the_sources_decides():
    found = fused(asked(600, lambda a, b, price: a + b - 3 * (price > 0.5)))
    assert isinstance(found.scorer, Ranker)
    assert found.left_out == frozenset()
    assert found.notes[-1].startswith("A ranker of ")


def test_a_blend_is_taken_where_it_is_the_truth():
    found = fused(asked(300, lambda a, b, price: 0.7 * a + 0.3 * b))
    assert isinstance(found.scorer, Blend)
    np.testing.assert_allclose(found.scorer.weights, [0.7, 0.3], atol=0.1)
    assert found.notes[-1].startswith("A blend of the sources' scores orders candidates. On users left out")


def test_an_optional_source_without_use_is_left_out_of_either():
    found = fused(asked(400, lambda a, b, price: a))
    assert found.left_out == {"sequence"}
    assert any("sequence is left out" in note for note in found.notes)
    assert len(found.scorer.names) == len(NAMES) - 3


@pytest.mark.parametrize(("queries", "kind", "said"), [(12, type(None), "rank fusion"), (60, Blend, "Only 60 past")])
def test_with_little_to_learn_from_something_simpler_serves(queries, kind, said):
    found = fused(asked(queries, lambda a, b, price: a + b))
    assert isinstance(found.scorer, kind)
    assert said in found.notes[0]


@pytest.mark.parametrize("rule", [lambda a, b, price: -price, lambda a, b, price: a + b])
def test_it_comes_back_from_disk(rule, tmp_path):
    examples = asked(300, rule)
    fusion = Fusion(fused(examples).scorer, Shortlist(7, {"a": 0.25, "sequence": 0.75}))
    names = fusion.scorer.names
    fusion.save(tmp_path)
    again = Fusion.load(tmp_path, names)
    assert again.shortlist == fusion.shortlist
    features = examples.features[:, [NAMES.index(name) for name in names]]
    np.testing.assert_array_equal(again.scorer.predict(features), fusion.scorer.predict(features))


def test_a_release_without_either_has_neither(tmp_path):
    Fusion().save(tmp_path)
    found = Fusion.load(tmp_path, NAMES)
    assert (found.scorer, found.shortlist) == (None, None)
