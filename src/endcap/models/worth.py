"""Whether a candidate source is worth what it costs each answer: the ranker with it against the ranker without it.

Legend: q queries, n candidates of all queries end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endcap.models.crossfit import Examples, Gains, ideal

SIGMAS = 1.96
PARTS = ("score", "rank", "share")


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


def worth(source: str, whole: Gains, lean: Gains, examples: Examples) -> Verdict:
    """What a ranker finds with a source against what one finds without it, query by query, on users that neither has
    seen. whole, lean: float64 [q], see `ranker.Trial`. A target that the source alone proposed is lost without it, and
    counts as a miss. examples: those with the source.
    """
    gains = (whole - lean) / ideal(examples)
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
