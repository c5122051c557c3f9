"""A causal transformer over what a shopper did, giving a vector whose nearest items come next.

Dimension legend: b sequences, l positions, d width, c width of content vectors, n items of the catalogue,
p predictions, k negatives.

Follows SASRec (Kang & McAuley 2018, "Self-Attentive Sequential Recommendation"), with the loss over many sampled
negatives of gSASRec (Petrov & Macdonald 2023) and the modern block of eSASRec (2025). Items are the sum of a learned
vector and a projection of frozen content vectors, so that an item nobody has touched yet still has its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.types import Float32Array, Int64Array
from endcap.models.config import SequenceConfig
from endcap.models.export import export_tower
from endcap.models.layers import CausalBlock
from endcap.models.loop import Progress, Report, train
from endcap.models.objectives import Negatives, NegativeSampler, next_item_loss, whole_catalogue
from endcap.models.windows import Batch, EpochBatches, Sequences

INIT_STD = 0.02
SCORED_AT_ONCE = 256


class SequenceModel(nn.Module):
    """Item vectors and the tower that reads them. The same vectors are read and predicted (tied)."""

    def __init__(self, n_items: int, config: SequenceConfig, content: Float32Array | None = None) -> None:
        """content: float32 [n, c], fixed, any scale; rows of zeros where an item has none."""
        super().__init__()
        if config.dim % (2 * config.heads):
            raise CallerError(
                f"dim {config.dim} cannot be divided into {config.heads} heads of even width.",
                where="SequenceConfig",
                next_step="Choose heads so that dim / heads is even.",
            )
        self.config = config
        self.ids = nn.Embedding(n_items, config.dim)
        self.content: Tensor | None
        self.register_buffer("content", None if content is None else centred(content), persistent=False)
        self.project = None if content is None else nn.Linear(content.shape[1], config.dim, bias=False)
        self.places = nn.Embedding(config.max_len, config.dim) if config.positions == "learned" else None
        rotary_len = config.max_len if config.positions == "rotary" else 0
        self.blocks = nn.Sequential(
            *(
                CausalBlock(config.dim, config.heads, config.dropout, rotary_len=rotary_len)
                for _ in range(config.blocks)
            )
        )
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD if isinstance(module, nn.Embedding) else 0.05)

    def item_vectors(self, items: Tensor) -> Tensor:
        """int64 [m] -> [m, d]."""
        vectors: Tensor = self.ids(items)
        if self.content is not None and self.project is not None:
            vectors = vectors + self.project(self.content[items])
        return vectors

    def all_item_vectors(self) -> Tensor:
        """[n, d], without gradient."""
        with torch.no_grad():
            return self.item_vectors(torch.arange(self.ids.num_embeddings))

    def read(self, vectors: Tensor) -> Tensor:
        """Item vectors [b, l, d] -> user vectors after each position [b, l, d]."""
        x = vectors * self.config.dim**0.5
        if self.places is not None:
            x = x + self.places.weight[: x.shape[1]]
        out: Tensor = self.norm(self.blocks(self.dropout(x)))
        return out

    def forward(self, items: Tensor) -> Tensor:
        """int64 [b, l], PADDING on the right -> the user vectors after the last item [b, d]."""
        return UserTower(self).forward(items)


class UserTower(nn.Module):
    """Histories to user vectors, with all item vectors computed once. This is what is exported."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model
        self.table: Tensor
        self.register_buffer("table", model.all_item_vectors(), persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        """int64 [b, l], PADDING on the right -> [b, d]; all zero for a row that is nothing but padding."""
        real = items >= 0
        read = self.model.read(functional.embedding(items.clamp(min=0), self.table))
        lengths = real.sum(1)
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, read.shape[2])
        return read.gather(1, last).squeeze(1) * (lengths > 0).to(read.dtype)[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Histories and what came after them: user u's targets are targets[offsets[u]:offsets[u + 1]].

    targets: int64, distinct within a user. hide_seen: whether items of a user's own history leave the ranking.
    """

    contexts: Sequences
    targets: Int64Array
    offsets: Int64Array
    hide_seen: bool = False


@dataclass(frozen=True, slots=True)
class TrainedSequence:
    """onnx_difference: largest difference of the exported tower from torch."""

    model: SequenceModel
    report: Report
    onnx_difference: float


def fit_sequence(
    histories: Sequences,
    n_items: int,
    config: SequenceConfig,
    folder: Path,
    *,
    content: Float32Array | None = None,
    validation: Validation | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainedSequence:
    """`train_sequence`, then export into an existing `folder` (see `models.export` for the files).

    The checkpoint is removed once the export is complete.
    """
    model, report = train_sequence(
        histories, n_items, config, content=content, validation=validation, checkpoint=checkpoint, progress=progress
    )
    difference = export_tower(UserTower(model), model.all_item_vectors(), config.max_len, folder)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return TrainedSequence(model, report, difference)


def train_sequence(
    histories: Sequences,
    n_items: int,
    config: SequenceConfig,
    *,
    content: Float32Array | None = None,
    validation: Validation | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[SequenceModel, Report]:
    """Train on every transition of `histories`; without `validation`, for all of `config.epochs`.

    content: float32 [n_items, c], see `SequenceModel`. checkpoint: a file, continued from after an interruption.
    """
    _check(histories, n_items, content)
    torch.manual_seed(int(rng(config.seed, "sequence weights").integers(2**62)))
    model = SequenceModel(n_items, config, content)
    task = SequenceTask(model, histories, validation)
    run_id = _run_id(histories, n_items, config, content)
    return model, train(model, task, config, checkpoint=checkpoint, run_id=run_id, progress=progress)


class SequenceTask:
    """Next-item prediction at every position of every window."""

    def __init__(self, model: SequenceModel, histories: Sequences, validation: Validation | None) -> None:
        self.model, self.validation, config = model, validation, model.config
        keep_order = histories.groups is None or not config.shuffle_within_groups
        self.histories = Sequences(histories.items, histories.offsets) if keep_order else histories
        self._draw = _negatives(histories, model.ids.num_embeddings, config)

    def batches(self, epoch: int) -> EpochBatches:
        config = self.model.config
        random = rng(config.seed, f"sequence batches {epoch}")
        return EpochBatches(self.histories, config.max_len, config.batch_size, random)

    def loss(self, batch: Batch) -> Tensor:
        """Each distinct item's vector is made once, however often it is read, predicted or drawn."""
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        real = targets >= 0
        negatives = self._draw()
        wanted = targets[real]
        parts = (inputs.clamp(min=0).flatten(), wanted, negatives.items)
        items, places = torch.unique(torch.cat(parts), return_inverse=True)
        read, predicted, drawn = places.split([len(part) for part in parts])
        vectors = self.model.item_vectors(items)
        users = self.model.read(functional.embedding(read.view_as(inputs), vectors))[real]
        return next_item_loss(
            users,
            functional.embedding(predicted, vectors),
            wanted,
            negatives,
            functional.embedding(drawn, vectors),
            temperature=self.model.config.temperature,
        )

    def metric(self) -> float | None:
        if self.validation is None:
            return None
        return ndcg(self.model, self.validation, most_users=self.model.config.validation_users)


def ndcg(model: SequenceModel, validation: Validation, k: int = 10, most_users: int | None = None) -> float:
    """Mean NDCG@k over users who have targets (`most_users` of them, evenly spaced), all items ranked.

    DCG = sum of 1 / log2(rank + 1) over the targets among the first k; divided by that of an ideal ranking.
    """
    tower = UserTower(model).eval()
    histories = validation.contexts.last(model.config.max_len)
    counts = np.diff(validation.offsets)
    gains = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate(([np.inf], np.cumsum(gains)))[np.minimum(counts, k)]
    users = np.flatnonzero(counts)
    if most_users is not None and len(users) > most_users:
        users = users[np.linspace(0, len(users) - 1, most_users).astype(np.int64)]
    k = min(k, model.ids.num_embeddings)
    total = 0.0
    for start in range(0, len(users), SCORED_AT_ONCE):
        part = users[start : start + SCORED_AT_ONCE]
        with torch.inference_mode():
            scores = tower(torch.from_numpy(histories[part])) @ tower.table.T
            if validation.hide_seen:
                _hide(scores, validation.contexts, part)
            best = scores.topk(k, dim=1).indices.numpy()
        for user, ranked in zip(part, best, strict=True):
            wanted = validation.targets[validation.offsets[user] : validation.offsets[user + 1]]
            total += float(gains[:k][np.isin(ranked, wanted)].sum() / ideal[user])
    return total / len(users) if len(users) else 0.0


def centred(content: Float32Array) -> Tensor:
    """float32 [n, c] with what all items share taken out, rows of unit length; empty rows stay zero.

    Vectors of language models crowd into a narrow cone (Ethayarajh 2019); the common part says nothing of an item.
    """
    vectors = torch.from_numpy(np.asarray(content, dtype=np.float32))
    known = vectors.abs().sum(1) > 0
    if not bool(known.any()):
        return vectors.clone()
    moved = (vectors - vectors[known].mean(0)) * known[:, None]
    return functional.normalize(moved, dim=1)


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


def _hide(scores: Tensor, contexts: Sequences, users: Int64Array) -> None:
    for row, user in enumerate(users):
        seen = contexts.items[contexts.offsets[user] : contexts.offsets[user + 1]]
        scores[row, torch.from_numpy(seen).long()] = -torch.inf


def _check(histories: Sequences, n_items: int, content: Float32Array | None) -> None:
    if len(histories.items) and int(histories.items.max()) >= n_items:
        raise CallerError(
            f"Histories name item {int(histories.items.max()):,}; the catalogue has {n_items:,}.",
            where="fit_sequence",
            next_step="Build histories and catalogue from the same ids.",
        )
    if content is not None and (len(content) != n_items or not np.isfinite(content).all()):
        raise CallerError(
            f"Content must be {n_items:,} rows of finite numbers; it has {len(content):,} rows.",
            where="fit_sequence",
            next_step="Encode the whole catalogue again.",
        )
    if not np.any(np.diff(histories.offsets) > 1):
        raise CallerError(
            "No history has two events, so there is nothing to learn an order from.",
            where="fit_sequence",
            next_step="Leave the sequence model out until there is more behaviour.",
        )


def _run_id(histories: Sequences, n_items: int, config: SequenceConfig, content: Float32Array | None) -> str:
    digest = hashlib.blake2b(f"{n_items} {config.model_dump_json()}".encode(), digest_size=16)
    for array in (histories.items, histories.offsets, histories.groups, content):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()
