"""The learned ranker: one LightGBM LambdaRank model over everything the sources and the shopper's state say.

Legend: q queries, n candidates of all queries end to end, f features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
from pydantic import Field

from endcap.core.errors import ArtifactError
from endcap.core.section import Section
from endcap.core.types import Candidates, Float32Array
from endcap.models.crossfit import Examples, Gains, K, dcg, folds

MAX_BIN = 127


class RankerConfig(Section):
    rounds: int = Field(100, ge=1, description="Most trees to grow; fewer where fewer do better on users left out.")
    folds: int = Field(3, ge=2, description="Parts of the users, each left out once to see how many trees do best.")
    leaves: int = Field(31, ge=2, description="Leaves of a tree.")
    learning_rate: float = Field(0.1, gt=0, description="Shrinkage of each tree.")
    min_leaf: int = Field(100, ge=1, description="Least candidates in a leaf.")
    feature_share: float = Field(0.5, gt=0, le=1, description="Share of the features each tree may use.")
    row_share: float = Field(0.8, gt=0, le=1, description="Share of the queries each tree sees.")
    l2: float = Field(5.0, ge=0, description="L2 penalty on leaf values.")
    truncation: int = Field(20, ge=1, description="LambdaRank looks at pairs with one member above this rank.")
    min_blend: int = Field(
        20, ge=2, description="With fewer training queries that hold a target, candidates are ordered by rank fusion."
    )
    min_queries: int = Field(
        200, ge=1, description="With fewer of them there is no ranker, and a blend of the sources' scores is fitted."
    )


class Ranker:
    """A fitted LightGBM model bound to its features by name. Implements Scorer."""

    def __init__(self, booster: lightgbm.Booster, names: Sequence[str]) -> None:
        self._booster, self.names = booster, tuple(names)

    @property
    def trees(self) -> int:
        return int(self._booster.num_trees())

    def score(self, features: Float32Array, candidates: Candidates) -> Float32Array:
        return self.predict(features)

    def predict(self, features: Float32Array) -> Float32Array:
        """float32 [n] from float32 [n, f]."""
        if not len(features):
            return np.empty(0, np.float32)
        scores: Float32Array = self._booster.predict(features, num_threads=1).astype(np.float32)
        return scores

    def save(self, folder: Path) -> None:
        self._booster.save_model(str(folder / "ranker.txt"))
        (folder / "features.json").write_text(json.dumps(self.names))

    @classmethod
    def load(cls, folder: Path, names: Sequence[str]) -> Ranker:
        """Raises ArtifactError if the release's ranker was fitted on other features than this code builds."""
        fitted = tuple(json.loads((folder / "features.json").read_text()))
        if fitted != tuple(names):
            raise ArtifactError(
                f"The ranker was fitted on other features: {sorted(set(fitted) ^ set(names))}.",
                where=str(folder),
                next_step="Train again with this version.",
            )
        return cls(lightgbm.Booster(model_file=str(folder / "ranker.txt")), names)


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
    return Ranker(booster, names)


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
