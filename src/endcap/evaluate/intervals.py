"""How sure a mean is: the bootstrap over queries (Efron and Tibshirani 1993, the percentile interval).

Queries are drawn with replacement, the same draws for every vector that belongs to the same queries, so a difference
of two models is resampled in pairs and its interval is as narrow as the models are alike.

Legend: q queries, m vectors measured on them, r resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endcap.core.determinism import rng
from endcap.core.errors import CallerError

Float64Array = NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95
DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries, and between which bounds it lies."""

    mean: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of ours minus theirs. p: the share of resamples in which it is zero or less (one-sided)."""

    mean: float
    lo: float
    hi: float
    p: float


def mean_interval(values: Float64Array, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> Interval:
    """The mean of float64 [q] with its percentile interval."""
    return interval_of(float(values.mean()), resampled_means(values, seed=seed, resamples=resamples), level)


def paired_difference(
    ours: Float64Array, theirs: Float64Array, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Difference:
    """ours minus theirs, both float64 [q] over the same queries in the same order."""
    if ours.shape != theirs.shape:
        raise CallerError(
            f"The models were measured on {len(ours)} and {len(theirs)} queries.",
            where="paired_difference",
            next_step="Measure both on the same queries, in the same order.",
        )
    gaps = ours - theirs
    return difference_of(float(gaps.mean()), resampled_means(gaps, seed=seed, resamples=resamples), level)


def resampled_means(values: Float64Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Float64Array:
    """The means of r resamples: float64 [r] from values [q], [r, m] from values [q, m].

    The draws depend on q, r and the seed alone, so means of different vectors can be subtracted from one another.
    """
    q = len(values)
    if q == 0:
        raise CallerError("There are no queries to resample.", next_step="Check the evaluation window.")
    draw = rng(seed, "bootstrap")
    at_once = max(1, DRAWS_AT_ONCE // q)
    means = [
        _counts(draw.integers(0, q, (min(at_once, resamples - done), q))) @ values / q
        for done in range(0, resamples, at_once)
    ]
    return np.concatenate(means)


def interval_of(mean: float, means: Float64Array, level: float = LEVEL) -> Interval:
    """The percentile interval of resampled means float64 [r]."""
    lo, hi = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(lo), float(hi))


def difference_of(mean: float, means: Float64Array, level: float = LEVEL) -> Difference:
    """The same of resampled differences float64 [r]."""
    inside = interval_of(mean, means, level)
    return Difference(mean, inside.lo, inside.hi, float((means <= 0).mean()))


def _counts(drawn: NDArray[np.int64]) -> Float64Array:
    """How often each query was drawn in each resample: float64 [r, q] from positions [r, q]."""
    r, q = drawn.shape
    flat = (drawn + np.arange(r)[:, None] * q).ravel()
    return np.bincount(flat, minlength=r * q).reshape(r, q).astype(np.float64)
