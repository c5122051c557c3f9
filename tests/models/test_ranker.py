"""The graph that serves says what LightGBM's trees say, at their thresholds and where values are missing too."""

import lightgbm
import numpy as np
import onnx
import pytest

from endcap.core.errors import ArtifactError
from endcap.models.ranker import Ranker
from endcap.models.ranker_fit import as_onnx

NAMES = tuple(f"feature_{number}" for number in range(6))


@pytest.fixture(scope="module")
def booster():
    """Column 0 is whole, 1 lacks some, 2 holds few values, 3 has thresholds between two float32 numbers."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(4000, len(NAMES))).astype(np.float32)
    features[:, 2] = draw.integers(-2, 3, 4000)
    features[:, 3] = np.float32(16_777_216) + 2 * draw.integers(0, 50, 4000)
    features[draw.random(4000) < 0.3, 1] = np.nan
    labels = features[:, 0] + np.where(np.isnan(features[:, 1]), 2, features[:, 1]) + np.sign(features[:, 2])
    labels += features[:, 3] % 20 / 10
    settings = {"objective": "regression", "num_leaves": 31, "verbosity": -1, "num_threads": 1, "seed": 0}
    return lightgbm.train(settings, lightgbm.Dataset(features, labels), 40)


def ranker_of(booster):
    return Ranker(as_onnx(booster), booster.model_to_string(), NAMES)


def test_the_graph_says_what_the_trees_say(booster):
    draw = np.random.default_rng(1)
    asked = draw.normal(scale=2, size=(5000, len(NAMES))).astype(np.float32)
    asked[:, 2], asked[:, 3] = draw.integers(-3, 4, 5000), np.float32(16_777_216) + 2 * draw.integers(-5, 55, 5000)
    asked[draw.random(asked.shape) < 0.2] = np.nan
    ranker = ranker_of(booster)
    assert ranker.trees == booster.num_trees() == 40
    np.testing.assert_allclose(ranker.predict(asked), booster.predict(asked), rtol=1e-5, atol=1e-5)
    assert ranker.predict(asked[:0]).shape == (0,)


def test_it_is_the_same_at_every_threshold(booster):
    table = booster.trees_to_dataframe()
    splits = table.dropna(subset=["split_feature"])
    asked = np.zeros((3 * len(splits), len(NAMES)), np.float32)
    for row, (name, threshold) in enumerate(zip(splits["split_feature"], splits["threshold"], strict=True)):
        near = np.float32(threshold)
        column = int(name.removeprefix("Column_"))
        for beside, value in enumerate(
            (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf)))
        ):
            asked[3 * row + beside, column] = value
    asked[np.abs(asked) < 1.1e-35] = 0  # as LightGBM takes them, before it looks at the trees
    np.testing.assert_allclose(ranker_of(booster).predict(asked), booster.predict(asked), rtol=1e-5, atol=1e-5)


def test_a_single_leaf_is_a_tree_too():
    settings = {"objective": "regression", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 100}
    data = lightgbm.Dataset(np.ones((10, 2), np.float32), np.arange(10.0))
    booster = lightgbm.train(settings, data, 2)
    asked = np.zeros((3, 2), np.float32)
    np.testing.assert_allclose(ranker_of(booster).predict(asked), booster.predict(asked), rtol=1e-6)


def test_a_split_by_sets_is_refused():
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 8, 2000)
    data = lightgbm.Dataset(codes[:, None].astype(np.float64), (codes % 3 == 0).astype(float), categorical_feature=[0])
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 2)
    with pytest.raises(ValueError, match="splits by <="):
        as_onnx(booster)


def test_it_is_saved_with_the_names_it_reads(booster, tmp_path):
    ranker = ranker_of(booster)
    ranker.save(tmp_path)
    again = Ranker.load(tmp_path, NAMES)
    asked = np.random.default_rng(2).normal(size=(50, len(NAMES))).astype(np.float32)
    np.testing.assert_array_equal(again.predict(asked), ranker.predict(asked))
    assert again.trees == ranker.trees
    assert lightgbm.Booster(model_file=str(tmp_path / "ranker.txt")).num_trees() == 40
    with pytest.raises(ArtifactError, match="other features"):
        Ranker.load(tmp_path, NAMES[1:])
    (tmp_path / "ranker.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"no ranker\.onnx"):
        Ranker.load(tmp_path, NAMES)


def test_the_graph_is_of_opsets_that_the_oldest_runtime_reads(booster):
    model = onnx.load_from_string(as_onnx(booster))
    assert model.ir_version <= 10  # what onnxruntime 1.22 reads, of the opsets too
    assert {opset.domain: opset.version <= {"": 22, "ai.onnx.ml": 5}[opset.domain] for opset in model.opset_import} == {
        "": True,
        "ai.onnx.ml": True,
    }
    assert [given.name for given in model.graph.input] == ["features"]
