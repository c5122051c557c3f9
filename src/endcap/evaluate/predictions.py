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
    areas = [sk.roc_auc_score(truth == k, probabilities[:, k]) for k in told]
    if areas:
        found["auc"] = float(np.mean(areas))
    return found


def labels(truth: Array, probabilities: Array) -> dict[str, float]:
    """Any of k labels. truth: bool [n, k]. probabilities: [n, k], a label counts as given from a half on."""
    sk, guess = _metrics(truth), probabilities >= 0.5
    found = {"accuracy": float((guess == truth.astype(bool)).all(1).mean())}
    for average in ("macro", "micro"):
        scores = sk.precision_recall_fscore_support(truth, guess, average=average, zero_division=0)
        found |= {f"{name}_{average}": float(value) for name, value in zip(PRF, scores, strict=False)}
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
    """Mean over lists. truth: relevance [n]. groups: int [n]. A list without relevance is left out; equal scores share
    their places, as if in any order."""
    sk, ndcg, first = _metrics(truth), [], []
    for group in np.unique(groups):
        rows = groups == group
        if truth[rows].max() > 0 and rows.sum() > 1:
            ndcg.append(sk.ndcg_score(truth[rows][None], scores[rows][None], k=10))
            best = scores[rows][truth[rows] > 0].max()
            ahead = ((scores[rows] > best).sum() + (scores[rows] >= best).sum() + 1) / 2
            first.append(1 / ahead)
    if not ndcg:
        raise DataError("No list has both a relevant candidate and another.", where="group")
    return {"ndcg@10": float(np.mean(ndcg)), "mrr": float(np.mean(first))}


def places(ranks: Array, at: Sequence[int] = (1, 10)) -> dict[str, float]:
    """ranks: [n], from 1, of the one right candidate of each."""
    found = {f"recall@{k}": float((ranks <= k).mean()) for k in at}
    near = ranks <= 10
    found["mrr@10"] = float(np.where(near, 1 / ranks, 0).mean())
    found["ndcg@10"] = float(np.where(near, 1 / np.log2(1 + ranks), 0).mean())
    return found


PRF = ("precision", "recall", "f1")


def _metrics(truth: Array) -> Any:
    if not len(truth):
        raise DataError("There is nothing to measure on.", where="the examples")
    try:
        from sklearn import metrics
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "finetune") from error
    return metrics
