"""Growing the ranker: LambdaRank by LightGBM, and its trees as an ONNX graph.

Legend: q queries, n candidates of all queries end to end, f features.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from onnx import TensorProto, helper

from endcap.models.crossfit import Examples, Gains, K, dcg, folds
from endcap.models.ranker import Ranker, RankerConfig

MAX_BIN = 127
IR_VERSION, OPSET, OPSET_ML = 8, 17, 1  # that onnxruntime 1.22 reads, as any newer one does


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """trees: how many were best. gains: float64 [q], DCG@10 of each query with so many, by trees that have not seen
    its user."""

    trees: int
    gains: Gains


def try_ranker(examples: Examples, names: Sequence[str], config: RankerConfig, seed: int, threads: int) -> Trial:
    """LambdaRank grown on all folds but one, for each in turn. How many trees: as did best over all."""
    fold = folds(examples, config.folds, seed)
    whole = _dataset(examples, names).construct()
    parameters = _parameters(config, seed, 1)

    def grow(out: int) -> tuple[lightgbm.Booster, list[float]]:
        rows = np.repeat(fold == out, examples.sizes)
        curve: dict[str, dict[str, list[float]]] = {}
        booster = lightgbm.train(
            parameters,
            whole.subset(np.flatnonzero(~rows).tolist()),
            config.rounds,
            valid_sets=[whole.subset(np.flatnonzero(rows).tolist())],
            callbacks=[lightgbm.record_evaluation(curve)],
        )
        return booster, curve["valid_0"][f"ndcg@{K}"]

    # a fold a thread: LightGBM lets go of Python while it works, and its own threads would wait for each other
    with ThreadPoolExecutor(threads) as pool:
        grown = list(pool.map(grow, range(int(fold.max()) + 1)))
    sizes = np.bincount(fold)
    trees = 1 + int(np.argmax(sizes @ np.array([curve for _, curve in grown])))
    scores = np.empty(len(examples.labels), np.float32)
    for out, (booster, _) in enumerate(grown):
        rows = np.repeat(fold == out, examples.sizes)
        scores[rows] = booster.predict(examples.features[rows], num_iteration=trees, num_threads=threads)
    return Trial(trees, dcg(scores, examples))


def fit_ranker(
    examples: Examples, names: Sequence[str], config: RankerConfig, trees: int, seed: int, threads: int
) -> Ranker:
    """LambdaRank (Burges 2010) on all candidates."""
    booster = lightgbm.train(_parameters(config, seed, threads), _dataset(examples, names), trees)
    return Ranker(as_onnx(booster), booster.model_to_string(), names)


def _dataset(examples: Examples, names: Sequence[str]) -> lightgbm.Dataset:
    group = examples.sizes[examples.sizes > 0]
    return lightgbm.Dataset(
        examples.features,
        examples.labels,
        group=group,
        feature_name=list(names),
        params={"max_bin": MAX_BIN, "verbosity": -1},
    )


def _parameters(config: RankerConfig, seed: int, threads: int) -> dict[str, object]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [K],
        "max_bin": MAX_BIN,
        "num_leaves": config.leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.min_leaf,
        "feature_fraction": config.feature_share,
        "bagging_fraction": config.row_share,
        "bagging_freq": 1,
        "bagging_by_query": True,
        "lambda_l2": config.l2,
        "lambdarank_truncation_level": config.truncation,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "verbosity": -1,
    }


def as_onnx(booster: lightgbm.Booster) -> bytes:
    """The trees of a model of numbers as a `TreeEnsembleRegressor`: "features" float32 [n, f] to "scores" [n, 1].

    LightGBM splits at float64, the graph at the largest float32 that is not above it, which parts the same float32
    features. A missing value goes where LightGBM sends it: to the side learned for it, or to that of 0.
    """
    trees = booster.dump_model()["tree_info"]
    nodes = [_nodes(number, tree["tree_structure"]) for number, tree in enumerate(trees)]
    inner = [node for tree in nodes for node in tree]
    leaves = [node for node in inner if node["modes"] == "LEAF"]
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["scores"],
        domain="ai.onnx.ml",
        n_targets=1,
        **{f"nodes_{part}": [node[part] for node in inner] for part in PARTS},
        target_treeids=[leaf["treeids"] for leaf in leaves],
        target_nodeids=[leaf["nodeids"] for leaf in leaves],
        target_ids=[0] * len(leaves),
        target_weights=[leaf["weight"] for leaf in leaves],
    )
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, booster.num_feature()])
    found = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
    graph = helper.make_graph([node], "ranker", [given], [found])
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()
    return content


PARTS = (
    "treeids",
    "nodeids",
    "featureids",
    "modes",
    "values",
    "truenodeids",
    "falsenodeids",
    "missing_value_tracks_true",
)


def _nodes(tree: int, root: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a tree, as LightGBM dumps it, each as `TreeEnsembleRegressor` wants it. Not by recursion: a tree
    may be as deep as it has leaves."""
    found: list[dict[str, Any]] = []
    waiting: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [(root, None, "")]
    while waiting:
        given, parent, side = waiting.pop()
        node: dict[str, Any] = dict.fromkeys(PARTS, 0)
        node |= {"treeids": tree, "nodeids": len(found)}
        if parent is not None:
            parent[side] = len(found)
        found.append(node)
        if "split_feature" not in given:
            node |= {"modes": "LEAF", "values": 0.0, "weight": given["leaf_value"]}
            continue
        if given["decision_type"] != "<=":
            raise ValueError(f"a ranker of numbers splits by <=, not {given['decision_type']}")
        threshold = given["threshold"]
        missing_goes_left = given["default_left"] if given["missing_type"] == "NaN" else threshold >= 0
        node |= {
            "featureids": given["split_feature"],
            "modes": "BRANCH_LEQ",
            "values": _not_above(threshold),
            "missing_value_tracks_true": int(missing_goes_left),
        }
        waiting.append((given["right_child"], node, "falsenodeids"))
        waiting.append((given["left_child"], node, "truenodeids"))
    return found


def _not_above(threshold: float) -> float:
    """The largest float32 that is not above it."""
    with np.errstate(over="ignore"):  # what every number is below
        near = np.float32(threshold)
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))
