"""The simple fusion: a convex blend of what the sources say. For shops with too little behind them for a ranker.

Legend: q queries, n candidates of all queries end to end, s sources.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endcap.core.errors import ArtifactError
from endcap.core.types import Candidates, Float32Array
from endcap.models.crossfit import Examples, Gains, dcg, folds

Float64Array = NDArray[np.float64]
ListLoss = Callable[[Float64Array], tuple[float, Float64Array]]
L2 = 0.1
STARTING = 5.0


class Blend:
    """score = sum over sources of weight x (the source's score / its best for this shopper). Implements Scorer.

    The weights are at least 0 and add up to 1.
    """

    def __init__(self, names: Sequence[str], weights: Float32Array) -> None:
        """names: of the features. weights: float32 [s], in the order of the sources among them."""
        self.names, self.weights = tuple(names), weights
        self._columns = [names.index(f"share_{source}") for source in sources_of(names)]

    def score(self, features: Float32Array, candidates: Candidates) -> Float32Array:
        return self.predict(features)

    def predict(self, features: Float32Array) -> Float32Array:
        """float32 [n] from float32 [n, f]."""
        scores: Float32Array = features[:, self._columns] @ self.weights
        return scores

    def save(self, folder: Path) -> None:
        weights = dict(zip(sources_of(self.names), self.weights.tolist(), strict=True))
        (folder / "blend.json").write_text(json.dumps(weights, indent=1))

    @classmethod
    def load(cls, folder: Path, names: Sequence[str]) -> Blend:
        """Raises ArtifactError if the release's blend was fitted on other sources."""
        weights = json.loads((folder / "blend.json").read_text())
        if list(weights) != sources_of(names):
            raise ArtifactError(
                f"The blend was fitted on the sources {list(weights)}.", where=str(folder), next_step="Train again."
            )
        return cls(names, np.array(list(weights.values()), np.float32))


def sources_of(names: Sequence[str]) -> list[str]:
    """The sources that features say a rank of, in order."""
    return [name.removeprefix("rank_") for name in names if name.startswith("rank_")]


def try_blend(examples: Examples, names: Sequence[str], count: int, seed: int) -> Gains:
    """float64 [q]: DCG@10 of each query, by a blend fitted on the other folds."""
    fold = folds(examples, count, seed)
    scores = np.empty(len(examples.labels), np.float32)
    for out in range(int(fold.max()) + 1):
        rows = np.repeat(fold == out, examples.sizes)
        weights = fit_weights(_of_blend(examples.of(fold != out), names))
        scores[rows] = Blend(names, weights).predict(examples.features[rows])
    return dcg(scores, examples)


def fit_blend(examples: Examples, names: Sequence[str]) -> Blend:
    return Blend(names, fit_weights(_of_blend(examples, names)))


def fit_weights(examples: Examples) -> Float32Array:
    """float32 [s] from examples whose features are, for each source, its score over its best.

    The weights under which targets are likeliest when an item is chosen in proportion to exp(score): the softmax over
    each query's candidates (ListNet, Cao et al. 2007), which is convex. Its scale, which does not change an order, is
    divided out.
    """
    from scipy import optimize  # only to learn; it takes a while to import

    x = examples.features.astype(np.float64)
    sizes = examples.sizes[examples.sizes > 0]
    loss = list_loss(x, examples.labels.astype(np.float64), sizes, L2)
    n = x.shape[1]
    found = optimize.minimize(loss, np.full(n, STARTING / n), jac=True, method="L-BFGS-B", bounds=[(0, None)] * n).x
    total = float(found.sum())
    weights: Float32Array = (found / total if total > 0 else np.full(n, 1 / n)).astype(np.float32)
    return weights


def list_loss(x: Float64Array, labels: Float64Array, sizes: NDArray[Any], l2: float) -> ListLoss:
    """weights float64 [f] -> the softmax loss over each list (ListNet), and its slope [f].

    x: [n, f], lists end to end, each of so many rows as `sizes` says, at least one. labels: [n].
    """
    starts = np.cumsum(sizes) - sizes
    targets, wanted = np.add.reduceat(labels, starts), x.T @ labels

    def loss(weights: Float64Array) -> tuple[float, Float64Array]:
        scores = x @ weights
        highest = np.maximum.reduceat(scores, starts)
        odds = np.exp(scores - np.repeat(highest, sizes))
        totals = np.add.reduceat(odds, starts)
        value = targets @ (np.log(totals) + highest) - wanted @ weights + 0.5 * l2 * weights @ weights
        slope = x.T @ (odds * np.repeat(targets / totals, sizes)) - wanted + l2 * weights
        return float(value), slope

    return loss


def _of_blend(examples: Examples, names: Sequence[str]) -> Examples:
    columns = [names.index(f"share_{source}") for source in sources_of(names)]
    return Examples(examples.features[:, columns], examples.labels, examples.sizes, examples.users)
