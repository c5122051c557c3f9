"""Whether a candidate source is worth what it costs each answer: the ranker with it against the ranker without it.

Legend: q queries, n candidates of all queries end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Int64Array
from endcap.models.ranker import Examples, Ranker

K = 10
SIGMAS = 1.96
PARTS = ("score", "rank", "share")


Fitted = tuple[Ranker, Examples]


@dataclass(frozen=True, slots=True)
class Verdict:
    """gain, error: mean over held-out queries of NDCG@10 with the source less without, and its standard error."""

    source: str
    gain: float
    error: float

    @property
    def stays(self) -> bool:
        """A source has to show its use: where the gain may be chance, it goes."""
        return self.gain > SIGMAS * self.error

    def __str__(self) -> str:
        found = f"NDCG@10 {self.gain:+.4f} ± {SIGMAS * self.error:.4f} on held-out queries"
        return f"The source {self.source} {'stays' if self.stays else 'is left out'}: {found}."


def worth(source: str, whole: Fitted, lean: Fitted, held_out: Int64Array) -> Verdict:
    """The ranker with a source against the one without, query by query, on users that neither was grown on.

    A target that the source alone proposed is lost without it, and counts as a miss.
    """
    (ranker, examples), (lean_ranker, fewer) = whole, lean
    asked = np.isin(examples.users, held_out)
    examples, fewer = examples.of(asked), fewer.of(asked)
    gains = (_dcg(ranker, examples) - _dcg(lean_ranker, fewer)) / _ideal(examples)
    return Verdict(source, float(gains.mean()), float(gains.std() / np.sqrt(max(1, len(gains) - 1))))


def without(examples: Examples, names: Sequence[str], source: str, per_source: int) -> tuple[Examples, tuple[str, ...]]:
    """The examples as they would be had the source not been there. Every query remains, some without a target."""
    kept = [place for place, name in enumerate(names) if name not in {f"{part}_{source}" for part in PARTS}]
    proposed = examples.features[:, names.index(f"rank_{source}")] < per_source
    counts = examples.features[:, names.index("proposed_by")] - proposed
    rows = np.flatnonzero(counts > 0)
    queries = np.repeat(np.arange(len(examples.sizes)), examples.sizes)
    sizes = np.bincount(queries[rows], minlength=len(examples.sizes)).astype(np.int64)
    features = examples.features[np.ix_(rows, np.array(kept))]
    features[:, kept.index(names.index("proposed_by"))] = counts[rows]
    left = Examples(features, examples.labels[rows], sizes, examples.users)
    return left, tuple(names[place] for place in kept)


def _dcg(ranker: Ranker, examples: Examples) -> NDArray[np.float64]:
    """float64 [q]: the sum over targets among the first K of 1 / log2(rank + 1)."""
    scores = ranker.predict(examples.features)
    queries = np.repeat(np.arange(len(examples.sizes)), examples.sizes)
    order = np.lexsort((-scores, queries))
    starts = np.cumsum(examples.sizes) - examples.sizes
    ranks = np.arange(len(scores)) - np.repeat(starts, examples.sizes) + 1
    found = np.where((examples.labels[order] > 0) & (ranks <= K), 1 / np.log2(ranks + 1), 0)
    return np.bincount(queries, found, len(examples.sizes)).astype(np.float64)


def _ideal(examples: Examples) -> NDArray[np.float64]:
    """float64 [q]: the DCG of all targets in front."""
    queries = np.repeat(np.arange(len(examples.sizes)), examples.sizes)
    targets = np.bincount(queries, examples.labels, len(examples.sizes)).astype(np.int64)
    best = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, K + 2)))])
    ideal: NDArray[np.float64] = np.maximum(best[np.minimum(targets, K)], 1e-9)
    return ideal
