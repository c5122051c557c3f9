"""What a sequence model is trained to do: one objective, or several summed with weights.

next_item     at every position, the item after it, from what came before (SASRec, Kang & McAuley 2018, with the loss
              over many sampled negatives of gSASRec, Petrov & Macdonald 2023). What is asked when the model serves.
masked_item   items hidden at random, from both sides (BERT4Rec, Sun et al. 2019). The pass is one of its own: it looks
              both ways, and next_item never does.
contrastive   of two altered views of each history, which belongs to which (CL4SRec, Xie et al. 2022). By itself it
              places shoppers and not items: it goes before or beside the others.

With `turned`, all item vectors of a step are turned together, by a rotation drawn anew. It leaves every angle between
items as it is, and takes from the tower what it could only know of one catalogue: that things in this direction are
followed by things in that one. What is left to learn holds anywhere: how nearness, order and repetition count, and, by
the projection, which contents are near.

Dimension legend: b windows of a batch, l positions, p predictions, d width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from endcap.core.determinism import rng
from endcap.models.augment import HIDDEN, hide, view
from endcap.models.config import SequenceConfig
from endcap.models.objectives import Negatives, NegativeSampler, item_loss, view_loss, whole_catalogue
from endcap.models.sequence import SequenceModel
from endcap.models.sequence_validation import Validation, ndcg
from endcap.models.windows import PADDING, Batch, EpochBatches, Sequences


class SequenceTask:
    """The objectives that weigh anything in `model.config`, on every window of `histories`."""

    def __init__(self, model: SequenceModel, histories: Sequences, validation: Validation | None) -> None:
        self.model, self.validation, config = model, validation, model.config
        keep_order = histories.groups is None or not config.shuffle_within_groups
        self.histories = Sequences(histories.items, histories.offsets) if keep_order else histories
        self._draw = _negatives(histories, model.n_items, config)
        offered = (
            (config.next_item, self._next_item),
            (config.masked_item, self._masked_item),
            (config.contrastive, self._contrastive),
        )
        self._objectives = [(weight, objective) for weight, objective in offered if weight]

    def batches(self, epoch: int) -> EpochBatches:
        config = self.model.config
        random = rng(config.seed, f"sequence batches {epoch}")
        return EpochBatches(self.histories, config.max_len, config.batch_size, random)

    def loss(self, batch: Batch) -> Tensor:
        """The weighted sum of the objectives."""
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        return torch.stack([weight * objective(inputs, targets) for weight, objective in self._objectives]).sum()

    def metric(self) -> float | None:
        if self.validation is None:
            return None
        return ndcg(self.model, self.validation, most_users=self.model.config.validation_users)

    def _next_item(self, inputs: Tensor, targets: Tensor) -> Tensor:
        real = targets != PADDING
        negatives = self._draw()
        vectors, predicted, drawn = self._vectors(inputs, targets[real], negatives.items)
        users = self.model.read(vectors)[real]
        return self._item_loss(users, predicted, targets[real], negatives, drawn)

    def _masked_item(self, inputs: Tensor, targets: Tensor) -> Tensor:
        items = _whole(inputs, targets)
        chosen = hide(items, self.model.config.mask_share)
        left = torch.where(chosen, HIDDEN, items)
        negatives = self._draw()
        vectors, predicted, drawn = self._vectors(left, items[chosen], negatives.items)
        users = self.model.read(self.model.with_mask(left, vectors), items != PADDING)[chosen]
        return self._item_loss(users, predicted, items[chosen], negatives, drawn)

    def _contrastive(self, inputs: Tensor, targets: Tensor) -> Tensor:
        items = _whole(inputs, targets)
        views = torch.cat((view(items), view(items)))
        (vectors,) = self._vectors(views)
        users = self.model.user_vectors(self.model.with_mask(views, vectors), (views != PADDING).sum(1))
        first, second = users.chunk(2)
        return view_loss(first, second, temperature=self.model.config.contrastive_temperature)

    def _item_loss(
        self, users: Tensor, predicted: Tensor, wanted: Tensor, negatives: Negatives, drawn: Tensor
    ) -> Tensor:
        temperature = self.model.config.temperature
        return item_loss(users, predicted, wanted, negatives, drawn, temperature=temperature)

    def _vectors(self, *parts: Tensor) -> list[Tensor]:
        """[..., d] of each part's items; what PADDING and HIDDEN get means nothing. Each distinct item's vector is made
        once, however often it is read, predicted or drawn."""
        flat = [part.clamp(min=0).flatten() for part in parts]
        items, places = torch.unique(torch.cat(flat), return_inverse=True)
        vectors = self.model.item_vectors(items)
        vectors = vectors @ _rotation(vectors.shape[1]) if self.model.config.turned else vectors
        split = places.split([len(part) for part in flat])
        return [functional.embedding(own.view_as(part), vectors) for own, part in zip(split, parts, strict=True)]


def _whole(inputs: Tensor, targets: Tensor) -> Tensor:
    """The windows with their last item: [b, l] and what came after each -> [b, l + 1]."""
    return torch.cat((inputs[:, :1], targets), dim=1)


def _rotation(width: int) -> Tensor:
    """[d, d], orthogonal, all equally likely (Mezzadri 2007, "How to Generate Random Matrices", section 5)."""
    q, r = torch.linalg.qr(torch.randn(width, width))
    turn: Tensor = q * r.diagonal().sign()
    return turn


def _negatives(histories: Sequences, n_items: int, config: SequenceConfig) -> Callable[[], Negatives]:
    if config.negatives == 0 or config.negatives >= n_items:
        everything = whole_catalogue(n_items)
        return lambda: everything
    counts = np.bincount(histories.items, minlength=n_items)
    samplers: dict[str, Callable[[], NegativeSampler]] = {
        "uniform": lambda: NegativeSampler.uniform(n_items, config.negatives),
        "log_uniform": lambda: NegativeSampler.log_uniform(counts, config.negatives),
        "popularity": lambda: NegativeSampler.popularity(counts, config.negatives),
    }
    return samplers[config.sampling]().draw
