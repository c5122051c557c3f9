"""The learned ranker: one LightGBM LambdaRank model over everything the sources and the shopper's state say.

Legend: q queries, n candidates of all queries end to end, f features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from endcap.core.errors import ArtifactError, CallerError
from endcap.core.section import Section
from endcap.core.types import Candidates, Float32Array, Int64Array


class RankerConfig(Section):
    rounds: int = Field(
        100, ge=1, description="Most trees to grow; early stopping on held-out queries may stop sooner."
    )
    patience: int = Field(25, ge=1, description="Rounds without a better NDCG@10 before it stops.")
    leaves: int = Field(31, ge=2, description="Leaves of a tree.")
    learning_rate: float = Field(0.1, gt=0, description="Shrinkage of each tree.")
    min_leaf: int = Field(100, ge=1, description="Least candidates in a leaf.")
    feature_share: float = Field(0.5, gt=0, le=1, description="Share of the features each tree may use.")
    row_share: float = Field(0.8, gt=0, le=1, description="Share of the queries each tree sees.")
    l2: float = Field(5.0, ge=0, description="L2 penalty on leaf values.")
    truncation: int = Field(20, ge=1, description="LambdaRank looks at pairs with one member above this rank.")
    held_out: float = Field(0.1, gt=0, lt=1, description="Share of users whose queries decide when to stop.")
    min_queries: int = Field(
        200, ge=1, description="With fewer training queries that hold a target there is no ranker."
    )


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """features: float32 [n, f]. labels: int8 [n], 1 for a target. sizes: int64 [q], candidates of each query.
    users: int64 [q], whose query it is: users are kept together when some are held out."""

    features: Float32Array
    labels: NDArray[np.int8]
    sizes: Int64Array
    users: Int64Array

    def of(self, queries: NDArray[np.bool_]) -> Examples:
        """Those of some queries. queries: bool [q]."""
        rows = np.repeat(queries, self.sizes)
        return Examples(self.features[rows], self.labels[rows], self.sizes[queries], self.users[queries])


class Ranker:
    """A fitted LightGBM model bound to its features by name. Implements Scorer."""

    def __init__(self, booster: lightgbm.Booster, names: Sequence[str]) -> None:
        self._booster, self.names = booster, tuple(names)

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


def fit_ranker(examples: Examples, names: Sequence[str], config: RankerConfig, seed: int, threads: int) -> Ranker:
    """LambdaRank (Burges 2010) on candidates, stopped where NDCG@10 on held-out users is best."""
    inside = ~np.isin(examples.users, held_out_users(examples, config, seed))
    train = _dataset(examples, inside, names)
    rest = _dataset(examples, ~inside, names, reference=train)
    stopper = lightgbm.early_stopping(config.patience, verbose=False)
    parameters = _parameters(config, seed, threads)
    booster = lightgbm.train(parameters, train, config.rounds, valid_sets=[rest], callbacks=[stopper])
    return Ranker(booster, names)


def held_out_users(examples: Examples, config: RankerConfig, seed: int) -> Int64Array:
    """int64: the users whose queries decide when to stop. CallerError where there is one user only."""
    users = np.random.default_rng(seed).permutation(np.unique(examples.users))
    if len(users) < 2:
        raise CallerError("The examples are of one user only.", where="fit_ranker", next_step="Do without a ranker.")
    return users[: min(max(1, round(len(users) * config.held_out)), len(users) - 1)]


def _dataset(
    examples: Examples, queries: NDArray[np.bool_], names: Sequence[str], reference: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
    part = examples.of(queries)
    return lightgbm.Dataset(
        part.features,
        part.labels,
        group=part.sizes[part.sizes > 0],
        feature_name=list(names),
        reference=reference,
    )


def _parameters(config: RankerConfig, seed: int, threads: int) -> dict[str, object]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [10],
        "max_bin": 127,
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
