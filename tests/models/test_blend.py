"""The convex blend on queries whose answer is a known mixture of what sources say."""

import numpy as np
import pytest

from endcap.core.errors import ArtifactError
from endcap.models.blend import Blend, fit_blend, fit_weights, sources_of, try_blend
from endcap.models.crossfit import Examples, dcg, ideal

NAMES = (
    "score_a",
    "score_b",
    "score_c",
    "rank_a",
    "rank_b",
    "rank_c",
    "share_a",
    "share_b",
    "share_c",
    "share_of_leaf",
)


def mixed(weights, queries=600, candidates=12, noise=0.05):
    """Targets are the best candidates by a mixture of three random scores, blurred."""
    draw = np.random.default_rng(0)
    shares = draw.random((queries, candidates, 3)).astype(np.float32)
    best = (shares @ np.array(weights, np.float32) + noise * draw.gumbel(size=(queries, candidates))).argmax(axis=1)
    labels = np.zeros((queries, candidates), np.int8)
    labels[np.arange(queries), best] = 1
    flat = shares.reshape(-1, 3)
    features = np.column_stack([flat, flat, flat, draw.random(len(flat))]).astype(np.float32)
    sizes = np.full(queries, candidates, np.int64)
    return Examples(features, labels.ravel(), sizes, np.arange(queries, dtype=np.int64))


def test_the_weights_of_the_mixture_are_found():
    blend = fit_blend(mixed((0.6, 0.3, 0.1)), NAMES)
    assert sources_of(NAMES) == ["a", "b", "c"]
    np.testing.assert_allclose(blend.weights, [0.6, 0.3, 0.1], atol=0.05)


def test_a_source_that_speaks_against_the_targets_gets_nothing():
    weights = fit_blend(mixed((0.8, 0.2, -0.5)), NAMES).weights
    assert weights[2] == 0
    assert weights.sum() == pytest.approx(1)


def test_it_orders_users_it_has_not_seen_nearly_as_well_as_the_mixture():
    found = mixed((0.6, 0.3, 0.1))
    truth = found.features[:, :3] @ np.array([0.6, 0.3, 0.1], np.float32)
    blended = (try_blend(found, NAMES, 3, seed=0) / ideal(found)).mean()
    assert blended == pytest.approx((dcg(truth, found) / ideal(found)).mean(), abs=0.02)


def test_queries_without_candidates_or_targets_teach_nothing():
    found = mixed((0.6, 0.3, 0.1), queries=200)
    more = Examples(
        np.concatenate([found.features, found.features[:12]]),
        np.concatenate([found.labels, np.zeros(12, np.int8)]),
        np.concatenate([found.sizes, [0, 12]]),
        np.concatenate([found.users, [900, 901]]),
    )
    np.testing.assert_allclose(fit_blend(more, NAMES).weights, fit_blend(found, NAMES).weights, atol=1e-3)


def test_without_anything_to_tell_sources_apart_all_count_the_same():
    silent = Examples(np.zeros((8, 2), np.float32), np.eye(1, 8, dtype=np.int8)[0], np.array([8]), np.array([0]))
    np.testing.assert_allclose(fit_weights(silent), [0.5, 0.5])


def test_it_comes_back_from_disk_and_refuses_other_sources(tmp_path):
    blend = Blend(NAMES, np.array([0.5, 0.25, 0.25], np.float32))
    blend.save(tmp_path)
    features = np.random.default_rng(0).random((5, len(NAMES))).astype(np.float32)
    np.testing.assert_array_equal(Blend.load(tmp_path, NAMES).predict(features), blend.predict(features))
    with pytest.raises(ArtifactError, match="'b'"):
        Blend.load(tmp_path, ("rank_a", "rank_c", "share_a", "share_c"))
