"""The losses of sequence models: tell an item from the rest of the catalogue, and a shopper from the rest of a batch.

Dimension legend: p predictions, k negatives, n items of the catalogue, b sequences, d width.

The full softmax over n items costs p x n products a step. Sampling k negatives, shared by all predictions of the
step, costs p x k and, corrected for how often each negative is drawn, aims at the same optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from endcap.core.errors import CallerError
from endcap.core.types import Int64Array

ROWS_PER_TILE = 512  # a tile of 512 x 1,024 logits is 2 MB: it stays in a core's cache


@dataclass(frozen=True, slots=True)
class Negatives:
    """Items to tell the target from. items: int64 [k], ascending and distinct.

    log_expected: float32 [k], log of (expected draws / actual draws) of each; 0 where every item is present once.
    """

    items: Tensor
    log_expected: Tensor


class NegativeSampler:
    """Draws negatives, with replacement, from fixed probabilities over the catalogue.

    Repeated draws are merged: an item drawn c times weighs c times as much, which leaves the estimate as it is and
    lets each prediction meet its own target at most once.
    """

    def __init__(self, probabilities: Tensor, draws: int) -> None:
        """probabilities: [n], positive; scaled to sum to 1 here."""
        if draws < 1 or not bool((probabilities > 0).all()):
            raise CallerError(
                "Negative sampling needs at least one draw and a positive probability for every item.",
                where="NegativeSampler",
                next_step="Give draws >= 1 and smooth the counts, for instance by adding 1.",
            )
        exact = probabilities.double() / probabilities.double().sum()
        self.draws = draws
        self.log_expected = torch.log(exact * draws).float()
        self._cumulative = exact.cumsum(0)

    @classmethod
    def uniform(cls, n_items: int, draws: int) -> NegativeSampler:
        return cls(torch.ones(n_items), draws)

    @classmethod
    def popularity(cls, counts: Int64Array, draws: int, power: float = 0.75) -> NegativeSampler:
        """q proportional to (count + 1) ** power. Power 3/4: Mikolov et al. 2013 (word2vec)."""
        return cls((torch.from_numpy(counts).double() + 1) ** power, draws)

    @classmethod
    def log_uniform(cls, counts: Int64Array, draws: int) -> NegativeSampler:
        """q of the item at popularity rank r (from 0) = log((r + 2) / (r + 1)) / log(n + 1): Zipf's law, smoothed."""
        rank = np.empty(len(counts), dtype=np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        return cls(torch.log1p(1 / (torch.from_numpy(rank).double() + 1)), draws)

    def draw(self) -> Negatives:
        """A fresh set, from torch's global generator."""
        points = torch.rand(self.draws, dtype=torch.float64)
        drawn = torch.searchsorted(self._cumulative, points, right=True).clamp_(max=len(self._cumulative) - 1)
        items, counts = torch.unique(drawn, return_counts=True)
        return Negatives(items, self.log_expected[items] - counts.float().log())


def whole_catalogue(n_items: int) -> Negatives:
    """Every item once: with these, `item_loss` is the full softmax cross-entropy."""
    return Negatives(torch.arange(n_items), torch.zeros(n_items))


def item_loss(
    users: Tensor,
    positives: Tensor,
    targets: Tensor,
    negatives: Negatives,
    negative_vectors: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Mean over predictions of -log(exp(s_t) / Z), where s_i = <user, item i> / temperature and

        Z = exp(s_t) + sum over negatives j != t of exp(s_j - log_expected_j).

    users, positives: float32 [p, d]; targets: int64 [p], the items that `positives` are the vectors of;
    negative_vectors: float32 [k, d].

    With log_expected_j = log(draws x q_j / drawn_j), E[Z] is exactly the full partition function, since a negative's
    weight is one over its expected number of draws: importance sampling as in Bengio & Senécal 2008 and Jean et al.
    2015. The positive is certain to be present and thus not corrected (Khrylchenko et al. 2025, "Correcting the LogQ
    Correction"); a negative equal to the target is removed, or the target would be pushed away from its own user.
    Many negatives, rather than one, and the softmax over them are what lifts SASRec to later models' accuracy:
    Petrov & Macdonald 2023 (gSASRec), Klenitskiy & Vasilev 2023.
    """
    columns = torch.searchsorted(negatives.items, targets).clamp_(max=len(negatives.items) - 1)
    hit_columns = torch.where(negatives.items[columns] == targets, columns, -1)
    loss: Tensor = _TiledCrossEntropy.apply(  # type: ignore[no-untyped-call]
        users / temperature, positives, negative_vectors, negatives.log_expected, hit_columns
    )
    return loss


def view_loss(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Mean over 2b views of -log(exp(s_pair) / sum over the 2b - 1 other views of exp(s)), s = cosine / temperature.

    first, second: float32 [b, d]; row i of one and row i of the other are views of the same sequence, and all other
    rows of both are the negatives. InfoNCE (van den Oord et al. 2018) as NT-Xent (Chen et al. 2020, SimCLR, eq. 1),
    which CL4SRec (Xie et al. 2022, eq. 3) takes over for sequences.
    """
    views = functional.normalize(torch.cat((first, second)), dim=1)
    itself = torch.eye(len(views), dtype=torch.bool)
    likeness = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    pairs = torch.arange(len(views)).roll(len(first))
    return functional.cross_entropy(likeness, pairs)


class _TiledCrossEntropy(torch.autograd.Function):
    """The loss and its gradients in one pass over tiles of rows, so that the p x k logits never leave the cache.

    The idea is that of fused linear cross-entropy (Hsu et al. 2024, Liger Kernel). For p_j = softmax of a row:
    d loss / d logit_j = p_j for negatives and p_t - 1 for the positive, divided by the number of rows.
    """

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, positives: Tensor, negatives: Tensor, log_expected: Tensor, hit_columns: Tensor
    ) -> Tensor:
        user_grad, negative_grad = torch.empty_like(users), torch.zeros_like(negatives)
        positive_grad = torch.empty_like(positives)
        total = users.new_zeros(())
        for start in range(0, len(users), ROWS_PER_TILE):
            rows = slice(start, start + ROWS_PER_TILE)
            user, positive = users[rows], positives[rows]
            target_logit = (user * positive).sum(1)
            logits = torch.addmm(-log_expected, user, negatives.T)
            hit_rows = (hit_columns[rows] >= 0).nonzero().squeeze(1)
            logits[hit_rows, hit_columns[rows][hit_rows]] = -torch.inf
            peak = torch.maximum(logits.amax(1), target_logit)
            weights = logits.sub_(peak[:, None]).exp_()
            target_weight = (target_logit - peak).exp_()
            partition = weights.sum(1) + target_weight
            total += (partition.log() + peak - target_logit).sum()
            weights /= partition[:, None]
            away = (target_weight / partition - 1)[:, None]
            torch.addmm(away * positive, weights, negatives, out=user_grad[rows])
            torch.mul(away, user, out=positive_grad[rows])
            negative_grad.addmm_(weights.T, user)
        ctx.save_for_backward(user_grad, positive_grad, negative_grad)
        ctx.rows = len(users)
        return total / len(users)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        scale = upstream / ctx.rows
        user_grad, positive_grad, negative_grad = ctx.saved_tensors
        return user_grad * scale, positive_grad * scale, negative_grad * scale, None, None
