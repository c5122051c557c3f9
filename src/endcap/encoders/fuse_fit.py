"""Teaches modalities to agree: part of what is known of an item tells it from other items by the rest.

Legend: b items of a batch, M modalities, d width.

The loss is InfoNCE (van den Oord et al. 2018) between a random part of an item's modalities and the others of it, in
both directions, so nothing is ever compared with itself, and items with gaps are what is practised. A view's beliefs
are added but not scaled to unit length before they are compared, so how sure it is acts as its own temperature: what
often errs learns to be less sure, and that is what weighs it later. Pairs of items that belong together, such as
bought one after the other, are asked in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.types import Float32Array, Int64Array
from endcap.encoders.align import unit
from endcap.encoders.fuse import Fusion, FusionConfig, Projection

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_SURE = float(np.log(10.0))  # a softmax at temperature .1
WARM_UP = 0.1  # share of the steps in which the learning rate rises


class View(NamedTuple):
    """items: int64 [b]. vectors: of each modality, float32 [b, w]. present: bool [b, M], which of them are looked
    at."""

    items: Tensor
    vectors: list[Tensor]
    present: Tensor


def fit_fusion(
    vectors: Mapping[str, Float32Array], config: FusionConfig | None = None, *, pairs: Int64Array | None = None
) -> Fusion:
    """vectors: modality -> float32 [n, w], unit rows, zero where missing. pairs: int64 [p, 2], places of items that
    belong together, both ways.

    Of one modality there is nothing to learn: its vectors are kept. Of two without pairs, agreement cannot say which of
    them is the better, only which vectors of each say little. Raises CallerError where the modalities differ in
    their items, or where nothing ties them: no items with several, and no pairs.
    """
    config = config or FusionConfig()
    there = {name: array for name, array in vectors.items() if array.any()}
    if len({len(array) for array in vectors.values()}) != 1 or not there:
        raise CallerError(
            "There is nothing to fuse, or the modalities differ in their items.",
            where="fusion",
            next_step="Give a row an item for each modality, some of them not zero.",
        )
    if len(there) == 1:
        ((name, array),) = there.items()
        return Fusion({}, only=(name, array.shape[1]))
    begun = _begun(there, min(config.dim, *(array.shape[1] for array in there.values())))
    network = _Network(begun)
    _train(network, _Views(there, config, pairs), config)
    return Fusion(network.projections())


class _Network(nn.Module):
    """The projections with what they have moved away from where they began."""

    def __init__(self, begun: Mapping[str, Projection]) -> None:
        super().__init__()
        self.names = list(begun)
        self.begun = [torch.from_numpy(one.weights) for one in begun.values()]
        self.biases = [torch.from_numpy(one.bias) for one in begun.values()]
        self.moved = nn.ParameterList(torch.zeros_like(weights) for weights in self.begun)
        self.shifted = nn.ParameterList(torch.zeros_like(bias) for bias in self.biases)
        self.trust = nn.ParameterList(torch.zeros_like(bias) for bias in self.biases)
        self.sure = nn.ParameterList(torch.tensor(FIRST_SURE) for _ in self.begun)

    def forward(self, view: View) -> Tensor:
        """[b, d]: the sum of beliefs, as long as it is sure."""
        total = torch.zeros(len(view.items), len(self.biases[0]))
        for place, given in enumerate(view.vectors):
            weights = self.begun[place] + self.moved[place]
            directions = nn.functional.normalize(given @ weights + self.biases[place] + self.shifted[place], dim=1)
            sure = torch.exp(directions @ self.trust[place] + self.sure[place]) * view.present[:, place]
            total = total + sure[:, None] * directions
        return total

    def projections(self) -> dict[str, Projection]:
        found = {}
        for place, name in enumerate(self.names):
            weights = (self.begun[place] + self.moved[place]).detach().numpy()
            bias = (self.biases[place] + self.shifted[place]).detach().numpy()
            found[name] = Projection(
                weights, bias, self.trust[place].detach().numpy(), float(self.sure[place].detach())
            )
        return found


class _Views:
    """Batches of two views of the same items, or of two that belong together."""

    def __init__(self, vectors: Mapping[str, Float32Array], config: FusionConfig, pairs: Int64Array | None) -> None:
        self._vectors = [torch.from_numpy(np.asarray(array, np.float32)) for array in vectors.values()]
        self._present: NDArray[np.bool_] = np.stack([_present(array) for array in vectors.values()], axis=1)
        self._several = np.flatnonzero(self._present.sum(axis=1) > 1)
        known = np.zeros((0, 2), np.int64) if pairs is None else np.asarray(pairs, np.int64).reshape(-1, 2)
        something = np.flatnonzero(self._present.any(axis=1))
        self._pairs = known[np.isin(known[:, 0], something) & np.isin(known[:, 1], something)]
        self._draws, self._config = rng(config.seed, "fusion"), config
        if max(len(self._several), len(self._pairs)) < 2:
            raise CallerError(
                "Fewer than two items have several modalities, so nothing says how these belong together.",
                where="fusion",
                next_step="Give pairs of items that belong together, or keep one modality.",
            )

    def steps(self, count: int) -> Iterator[tuple[View, View]]:
        """`count` times two views, b rows each, whose rows belong together: within items and between them by turns."""
        kinds = [(self._agreeing(), self._several), (self._belonging(), self._pairs)]
        turns = cycle([views for views, rows in kinds if len(rows) > 1])
        yield from (next(views) for views in islice(turns, count))

    def _agreeing(self) -> Iterator[tuple[View, View]]:
        for rows in self._batches(len(self._several)):
            items = self._several[rows]
            one = self._parted(self._present[items])
            yield self._view(items, one), self._view(items, self._present[items] & ~one)

    def _belonging(self) -> Iterator[tuple[View, View]]:
        for rows in self._batches(len(self._pairs)):
            left, right = self._pairs[rows].T
            yield self._view(left, self._kept(left)), self._view(right, self._kept(right))

    def _batches(self, count: int) -> Iterator[Int64Array]:
        """Without end, all rows in a new order each time; a last one alone is left for the next time, since it has
        nothing to be told from."""
        edges = [*range(0, count, self._config.batch_size), count]
        while True:
            order = self._draws.permutation(count)
            yield from (order[start:end] for start, end in pairwise(edges) if end - start > 1)

    def _parted(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool [b, M]: a random part of each row's modalities, neither none nor all."""
        order = np.where(present, self._draws.random(present.shape), np.inf).argsort(axis=1).argsort(axis=1)
        sizes = self._draws.integers(1, present.sum(axis=1))
        parted: NDArray[np.bool_] = (order < sizes[:, None]) & present
        return parted

    def _kept(self, items: Int64Array) -> NDArray[np.bool_]:
        """bool [b, M]: what is not dropped of each item's modalities; all of them where none would be left."""
        present = self._present[items]
        kept = present & (self._draws.random(present.shape) >= self._config.dropped)
        return np.where(kept.any(axis=1, keepdims=True), kept, present)

    def _view(self, items: Int64Array, present: NDArray[np.bool_]) -> View:
        rows = torch.from_numpy(np.asarray(items))
        return View(rows, [vectors[rows] for vectors in self._vectors], torch.from_numpy(present))


def _train(network: _Network, views: _Views, config: FusionConfig) -> None:
    held = [*network.moved, *network.shifted, *network.trust]
    groups = [{"params": held, "weight_decay": config.decay}, {"params": list(network.sure), "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=max(2, config.steps), pct_start=WARM_UP
    )
    for one, other in views.steps(config.steps):
        loss = _loss(network(one), network(other), one.items, other.items)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _loss(one: Tensor, other: Tensor, ones: Tensor, others: Tensor) -> Tensor:
    """[b, d] each, and their items [b]: each row tells its own partner from the others', as sure as it is. Not from
    its own item, nor from what else it belongs to in the batch: popular items are there many times."""
    own = torch.arange(len(one))
    there = _told(one @ nn.functional.normalize(other, dim=1).T, ones, others)
    back = _told(other @ nn.functional.normalize(one, dim=1).T, others, ones)
    return (nn.functional.cross_entropy(there, own) + nn.functional.cross_entropy(back, own)) / 2


def _told(scores: Tensor, items: Tensor, partners: Tensor) -> Tensor:
    """[b, b], with minus infinity where a row is not told from another's partner. items, partners: [b]."""
    related = (items == items[:, None]) | (partners == partners[:, None]) | (partners == items[:, None])
    return scores.masked_fill(related.fill_diagonal_(False), -torch.inf)


def _begun(vectors: Mapping[str, Float32Array], dim: int) -> dict[str, Projection]:
    """Each modality's principal axes, turned to agree with the first one's where both are known (orthogonal
    Procrustes; Schönemann 1966). Distances within a modality stay what they were, as far as its axes reach."""
    begun: dict[str, Projection] = {}
    first: Float32Array | None = None
    for name, array in sorted(vectors.items(), key=lambda entry: -int(_present(entry[1]).sum())):
        present = _present(array)
        centre = array[present].mean(axis=0)
        shifted = (array - centre) * present[:, None]
        weights = np.linalg.eigh(shifted.T @ shifted)[1][:, ::-1][:, :dim]
        directions = unit(shifted @ weights)
        if first is None:
            first = directions
        else:
            left, _, right = np.linalg.svd(directions.T @ first)
            weights = weights @ (left @ right)
        weights = weights.astype(np.float32)
        begun[name] = Projection(weights, -centre @ weights, np.zeros(dim, np.float32), FIRST_SURE)
    return {name: begun[name] for name in vectors}


def _present(array: Float32Array) -> NDArray[np.bool_]:
    present: NDArray[np.bool_] = np.any(array != 0, axis=1)
    return present
