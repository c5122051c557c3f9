"""Losses of the tuning tasks. Dimension legend: n examples, a anchors, c candidates, k classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    log_softmax,
    logsigmoid,
    softmax,
)

NEVER = -1e4


def classes(logits: Tensor, wanted: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Cross-entropy of [n, k] and class numbers [n], or of independent yes and no where `wanted` is [n, k]."""
    if wanted.ndim == 2:
        soft = wanted * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits, soft, pos_weight=weights)
    return cross_entropy(logits, wanted, weight=weights, label_smoothing=smoothing)


def contrast(scores: Tensor, right: Tensor, ignored: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, equation 4): scores [a, c], the column of each anchor's own candidate [a].
    ignored: bool [a, c], candidates that are no honest negatives."""
    own = torch.nn.functional.one_hot(right, scores.shape[1]).bool()
    return cross_entropy(scores.masked_fill(ignored & ~own, NEVER), right)


def listwise(scores: Tensor, wanted: Tensor, groups: Tensor) -> Tensor:
    """Cross-entropy of each group's softmax with its labels' shares (Cao et al. 2007, ListNet). All [n]; groups without
    a positive label count for nothing."""
    same = groups[:, None] == groups[None, :]
    first = torch.ones(len(groups), dtype=torch.bool, device=groups.device)
    first[1:] = groups[1:] != groups[:-1]
    rows = scores[None, :].expand(len(scores), -1).masked_fill(~same, NEVER)[first]  # [groups, n]
    labels = (wanted[None, :] * same)[first]
    totals = labels.sum(1)
    told = totals > 0
    if not told.any():
        return scores.sum() * 0
    gains = -(labels * log_softmax(rows, dim=1)).sum(1)
    return (gains[told] / totals[told]).mean()


def pairwise(scores: Tensor, wanted: Tensor, groups: Tensor) -> Tensor:
    """-log sigmoid(better - worse) over a group's pairs of unequal labels (Rendle et al. 2009, BPR). All [n]."""
    better = (groups[:, None] == groups[None, :]) & (wanted[:, None] > wanted[None, :])
    if not better.any():
        return scores.sum() * 0
    return -logsigmoid((scores[:, None] - scores[None, :])[better]).mean()


def likeness(logits: Tensor, teacher: Tensor, temperature: float, *, several: bool = False) -> Tensor:
    """How far the student's probabilities [n, k] are from the teacher's (Hinton et al. 2015), of independent yes and no
    where there are several; squared error of single scores [n]."""
    if logits.ndim == 1:
        return (logits - teacher).square().mean()
    if several:
        softened = (teacher / temperature).sigmoid()
        return binary_cross_entropy_with_logits(logits / temperature, softened) * temperature**2
    softened = softmax(teacher / temperature, dim=1)
    return kl_div(log_softmax(logits / temperature, dim=1), softened, reduction="batchmean") * temperature**2
