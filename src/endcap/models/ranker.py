"""The learned ranker: one LambdaRank model over everything the sources and the shopper's state say. Serves from ONNX,
which walks the trees in about half of LightGBM's time; they are grown in `ranker_fit`.

Legend: n candidates of all queries end to end, f features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from endcap.core.errors import ArtifactError
from endcap.core.section import Section
from endcap.core.types import Candidates, Float32Array
from endcap.models.session import open_session

GRAPH, MODEL, FEATURES = "ranker.onnx", "ranker.txt", "features.json"


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
    """A fitted model bound to its features by name. Implements Scorer."""

    def __init__(self, graph: bytes, model: str, names: Sequence[str]) -> None:
        """graph: ONNX, "features" to "scores". model: the same in LightGBM's own words, for who wants to look into
        it."""
        self._graph, self._model, self.names = graph, model, tuple(names)
        self._session = open_session(graph)

    @property
    def trees(self) -> int:
        return self._model.count("\nTree=")

    def score(self, features: Float32Array, candidates: Candidates) -> Float32Array:
        return self.predict(features)

    def predict(self, features: Float32Array) -> Float32Array:
        """float32 [n] from float32 [n, f]."""
        if not len(features):
            return np.empty(0, np.float32)
        scores: Float32Array = self._session.run(None, {"features": features})[0][:, 0]
        return scores

    def save(self, folder: Path) -> None:
        (folder / GRAPH).write_bytes(self._graph)
        (folder / MODEL).write_text(self._model, encoding="utf-8")
        (folder / FEATURES).write_text(json.dumps(self.names))

    @classmethod
    def load(cls, folder: Path, names: Sequence[str]) -> Ranker:
        """Raises ArtifactError if the release's ranker was fitted on other features than this code builds, or is of
        before there were graphs."""
        fitted = tuple(json.loads((folder / FEATURES).read_text()))
        if fitted != tuple(names):
            raise ArtifactError(
                f"The ranker was fitted on other features: {sorted(set(fitted) ^ set(names))}.",
                where=str(folder),
                next_step="Train again with this version.",
            )
        if not (folder / GRAPH).exists():
            raise ArtifactError(
                f"The ranker has no {GRAPH}.", where=str(folder), next_step="Train again with this version."
            )
        return cls((folder / GRAPH).read_bytes(), (folder / MODEL).read_text(encoding="utf-8"), names)
