"""Whether a candidate source is worth what it costs each answer: the ranker with it against the ranker without it.

Legend: q queries, n candidates of all queries end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endcap.models.ranker import Examples, Ranker, RankerConfig, fit_ranker, held_out_users

K = 10
SIGMAS = 1.96


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """gain, error: mean over held-out queries of NDCG@10 with the source less without, and its standard error.
    ranker: the one to use, bound to the features of `stays`."""

    source: str
    gain: float
    error: float
    ranker: Ranker

    @property
    def stays(self) -> bool:
        """A source has to show its use: where the gain may be chance, it goes."""
        return self.gain > SIGMAS * self.error

    def __str__(self) -> str:
        found = f"NDCG@10 {self.gain:+.4f} ± {SIGMAS * self.error:.4f} on held-out queries"
        return f"The source {self.source} {'stays' if self.stays else 'is left out'}: {found}."


def worth(
    examples: Examples,
    names: Sequence[str],
    source: str,
    *,
    per_source: int,
    config: RankerConfig,
    seed: int,
    threads: int,
) -> Verdict:
    """Fit both rankers and compare them, query by query, on the users that neither was grown on.

    A target that the source alone proposed is lost without it, and counts as a miss.
    """
    fewer, fewer_names = without(examples, names, source, per_source)
    whole = fit_ranker(examples, names, config, seed, threads)
    if not fewer.labels.any():  # nobody else proposes a target
        return Verdict(source, 1.0, 0.0, whole)
    lean = fit_ranker(fewer, fewer_names, config, seed, threads)
    asked = np.isin(examples.users, held_out_users(examples, config, seed))
    examples, fewer = examples.of(asked), fewer.of(asked)
    gains = (_dcg(whole, examples) - _dcg(lean, fewer)) / _ideal(examples)
    gain, error = float(gains.mean()), float(gains.std() / np.sqrt(max(1, len(gains) - 1)))
    verdict = Verdict(source, gain, error, whole)
    return verdict if verdict.stays else Verdict(source, gain, error, lean)


def without(examples: Examples, names: Sequence[str], source: str, per_source: int) -> tuple[Examples, tuple[str, ...]]:
    """The examples as they would be had the source not been there. Every query remains, some without a target."""
    kept = [place for place, name in enumerate(names) if name not in (f"score_{source}", f"rank_{source}")]
    features = examples.features.copy()
    proposed = features[:, names.index(f"rank_{source}")] < per_source
    counts = features[:, names.index("proposed_by")]
    counts -= proposed
    rows = counts > 0
    queries = np.repeat(np.arange(len(examples.sizes)), examples.sizes)
    sizes = np.bincount(queries[rows], minlength=len(examples.sizes)).astype(np.int64)
    left = Examples(features[rows][:, kept], examples.labels[rows], sizes, examples.users)
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
