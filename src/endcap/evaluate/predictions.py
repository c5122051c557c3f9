"""How good predictions are that are no rankings of a catalogue: classes, probabilities, numbers, places.

The metrics themselves come from scikit-learn, which is imported when one is asked for.

Dimension legend: n predictions, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endcap.core.errors import DataError, MissingExtraError

Array = NDArray[Any]
BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Of predictions gathered by how sure they were: mean confidence, share that were right, how many. All [bins]."""

    confidence: Array
    right: Array
    count: Array

    @property
    def ece(self) -> float:
        """Expected calibration error (Naeini et al. 2015): the mean gap, weighted by how many."""
        return float((self.count * np.abs(self.confidence - self.right)).sum() / max(1, self.count.sum()))


def reliability(confidence: Array, right: Array, bins: int = BINS) -> Reliability:
    """confidence: [n], 0 to 1. right: [n], 0 or 1. Bins are of equal width; empty ones are left out."""
    place = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    return Reliability(
        (np.bincount(place, confidence, bins)[held] / count[held]),
        (np.bincount(place, right, bins)[held] / count[held]),
        count[held],
    )


def classes(truth: Array, probabilities: Array) -> dict[str, float]:
    """One of k classes. truth: int [n]. probabilities: [n, k]. Macro averages are over the classes that are there or
    are predicted."""
    sk, guess = _metrics(truth), probabilities.argmax(1)
    found = {"accuracy": float((guess == truth).mean())}
    for average in ("macro", "micro"):
        scores = sk.precision_recall_fscore_support(truth, guess, average=average, zero_division=0)
        found |= {f"{name}_{average}": float(value) for name, value in zip(PRF, scores, strict=False)}
    sure = probabilities.max(1)
    found["ece"] = reliability(sure, guess == truth).ece
    found["log_loss"] = float(-np.log(np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, 1)).mean())
    told = [k for k in np.unique(truth) if 0 < (truth == k).sum() < len(truth)]
    if told:
        found["auc"] = float(np.mean([sk.roc_auc_score(truth == k, probabilities[:, k]) for k in told]))
        found["pr_auc"] = float(np.mean([sk.average_precision_score(truth == k, probabilities[:, k]) for k in told]))
    return found


def labels(truth: Array, probabilities: Array) -> dict[str, float]:
    """Any of k labels. truth: bool [n, k]. probabilities: [n, k], a label counts as given from a half on. Macro
    averages are over the labels that are there or are predicted."""
    sk, guess, truth = _metrics(truth), probabilities >= 0.5, truth.astype(bool)
    found = {"accuracy": float((guess == truth).all(1).mean())}
    hits, guessed, there = (truth & guess).sum(0), guess.sum(0), truth.sum(0)
    seen = guessed + there > 0
    each = [_prf(*counts) for counts in zip(hits[seen], guessed[seen], there[seen], strict=True)]
    macro = np.mean(each, axis=0) if each else np.zeros(3)
    for average, scores in (("macro", macro), ("micro", _prf(hits.sum(), guessed.sum(), there.sum()))):
        found |= {f"{name}_{average}": float(value) for name, value in zip(PRF, scores, strict=True)}
    told = [k for k in range(truth.shape[1]) if 0 < truth[:, k].sum() < len(truth)]
    if told:
        found["auc"] = float(np.mean([sk.roc_auc_score(truth[:, k], probabilities[:, k]) for k in told]))
        found["pr_auc"] = float(np.mean([sk.average_precision_score(truth[:, k], probabilities[:, k]) for k in told]))
    found["ece"] = reliability(probabilities.ravel(), truth.ravel()).ece
    return found


def probabilities(truth: Array, probability: Array) -> dict[str, float]:
    """Yes or no. truth: 0 or 1 [n]. probability: of yes [n]."""
    sk, guess = _metrics(truth), probability >= 0.5
    if len(np.unique(truth)) < 2:
        raise DataError("All labels are the same, so nothing can be measured.", where="label")
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, guess, average="binary", zero_division=0)
    clipped = np.clip(probability.astype(np.float64), 1e-12, 1 - 1e-12)
    return {
        "auc": float(sk.roc_auc_score(truth, probability)),
        "pr_auc": float(sk.average_precision_score(truth, probability)),
        "accuracy": float((guess == (truth > 0)).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "ece": reliability(probability, truth).ece,
        "log_loss": float(-(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)).mean()),
    }


def numbers(truth: Array, guess: Array) -> dict[str, float]:
    """truth, guess: [n]. r2: share of the truth's spread that is explained."""
    error = guess - truth
    spread = float(np.var(truth))
    return {
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "r2": 1 - float((error**2).mean()) / spread if spread else 0.0,
    }


def lists(truth: Array, scores: Array, groups: Array) -> dict[str, float]:
    """Mean over lists. truth: relevance [n], 0 or more. groups: int [n]. Lists of one, and those without relevance, are
    left out. Equal scores share their places, as if in any order (McSherry & Najork 2008)."""
    _, groups = np.unique(groups, return_inverse=True)
    sizes = np.bincount(groups)
    ideal = _gains(truth, truth, groups)
    told = (ideal > 0) & (sizes > 1)
    if not told.any():
        raise DataError("No list has both a relevant candidate and another.", where="group")
    best = np.full(len(sizes), -np.inf)
    relevant = truth > 0
    np.maximum.at(best, groups[relevant], scores[relevant])
    above = np.bincount(groups, scores > best[groups], len(sizes))
    level = np.bincount(groups, scores == best[groups], len(sizes))
    return {
        "ndcg@10": float((_gains(truth, scores, groups)[told] / ideal[told]).mean()),
        "mrr": float((1 / (above + (level + 1) / 2))[told].mean()),
    }


def _gains(truth: Array, scores: Array, groups: Array) -> Array:
    """Discounted gain of each list's first ten by score: [lists]. groups: numbers of the lists, from 0."""
    order = np.lexsort((-scores, groups))
    truth, scores, groups = truth[order], scores[order], groups[order]
    place = np.arange(len(groups)) - np.searchsorted(groups, groups)
    discount = np.where(place < 10, 1 / np.log2(place + 2), 0)
    starts = np.flatnonzero((np.diff(groups, prepend=-1) != 0) | (np.diff(scores, prepend=np.nan) != 0))
    size = np.diff(starts, append=len(groups))
    shared = np.add.reduceat(truth, starts) * np.add.reduceat(discount, starts) / size
    gains: Array = np.bincount(groups[starts], shared)
    return gains


def places(ranks: Array, at: Sequence[int] = (1, 10)) -> dict[str, float]:
    """ranks: [n], from 1, of the one right candidate of each."""
    found = {f"recall@{k}": float((ranks <= k).mean()) for k in at}
    near = ranks <= 10
    found["mrr@10"] = float(np.where(near, 1 / ranks, 0).mean())
    found["ndcg@10"] = float(np.where(near, 1 / np.log2(1 + ranks), 0).mean())
    return found


PRF = ("precision", "recall", "f1")


def _prf(hits: int, guessed: int, there: int) -> tuple[float, float, float]:
    """Precision, recall and F1, 0 where there is nothing to divide by."""
    return hits / max(1, guessed), hits / max(1, there), 2 * hits / max(1, guessed + there)


def _metrics(truth: Array) -> Any:
    if not len(truth):
        raise DataError("There is nothing to measure on.", where="the examples")
    try:
        from sklearn import metrics
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "finetune") from error
    return metrics
