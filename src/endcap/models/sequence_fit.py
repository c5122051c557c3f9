"""Training a sequence model, from nothing or from weights, and exporting it.

The checkpoint of an interrupted run continues with the same histories, catalogue, settings and start alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.types import Float32Array
from endcap.models.config import SequenceConfig
from endcap.models.export import export_tower
from endcap.models.loop import Progress, Report, train
from endcap.models.sequence import Ensemble, SequenceModel, UserTower
from endcap.models.sequence_task import SequenceTask
from endcap.models.sequence_validation import Validation
from endcap.models.sequence_weights import Names, SequenceWeights, member_folder
from endcap.models.windows import Sequences


@dataclass(frozen=True, slots=True)
class TrainedSequence:
    """models: one, or the members of an ensemble. report: of the first. onnx_difference: largest difference of the
    exported tower from torch."""

    models: tuple[SequenceModel, ...]
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
    names: Names | None = None,
    starts: Sequence[SequenceWeights] = (),
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainedSequence:
    """`train_sequence` as often as the ensemble has members, then export into an existing `folder` (see `models.export`
    for the files), and beside it, where `names` are given, the weights that a later model can start from (see
    `models.sequence_weights.member_folder`).

    starts: one for each member, or for all. validation: stops the first; the others train for as many epochs.
    checkpoint: removed, with those of the other members, once the export is complete.
    """
    checkpoints = [_checkpoint_of(checkpoint, place) for place in range(config.ensemble)]
    models: list[SequenceModel] = []
    reports: list[Report] = []
    for place, kept in enumerate(checkpoints):
        model, report = train_sequence(
            histories,
            n_items,
            config.member(place) if not reports else _as_long(config.member(place), reports[0]),
            content=content,
            validation=None if reports else validation,
            names=names,
            start=starts[place % len(starts)] if starts else None,
            checkpoint=kept,
            progress=None if progress is None else _part(progress, place, config.ensemble),
        )
        models.append(model)
        reports.append(report)
    towers = [UserTower(model) for model in models]
    vectors = torch.cat([model.all_item_vectors() for model in models], dim=1)
    difference = export_tower(towers[0] if len(towers) == 1 else Ensemble(towers), vectors, config.max_len, folder)
    if names is not None:
        for place, model in enumerate(models):
            SequenceWeights.of(model, names).save(member_folder(folder, place, len(models), make=True))
    for kept in checkpoints:
        if kept is not None:
            kept.unlink(missing_ok=True)
    return TrainedSequence(tuple(models), reports[0], difference)


def _checkpoint_of(checkpoint: Path | None, place: int) -> Path | None:
    return checkpoint if checkpoint is None or place == 0 else checkpoint.with_suffix(f".{place}{checkpoint.suffix}")


def _as_long(config: SequenceConfig, first: Report) -> SequenceConfig:
    return config.model_copy(update={"epochs": len(first.epochs)})


def _part(progress: Callable[[Progress], None], place: int, parts: int) -> Callable[[Progress], None]:
    """One run's progress as a part of several: its epochs follow those of the runs before it."""

    def tell(at: Progress) -> None:
        progress(replace(at, epoch=place * at.epochs + at.epoch, epochs=parts * at.epochs))

    return tell


def train_sequence(
    histories: Sequences,
    n_items: int,
    config: SequenceConfig,
    *,
    content: Float32Array | None = None,
    validation: Validation | None = None,
    names: Names | None = None,
    start: SequenceWeights | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[SequenceModel, Report]:
    """Train on every transition of `histories`; without `validation`, for all of `config.epochs`.

    content: float32 [n_items, c], see `SequenceModel`. names: what positions and content stand for; with them, `start`
    gives the items that both know their vectors. start: see `SequenceWeights.give`, which may refuse. checkpoint: a
    file, continued from after an interruption.
    """
    _check(histories, n_items, content)
    torch.manual_seed(int(rng(config.seed, "sequence weights").integers(2**62)))
    model = SequenceModel(n_items, config, content)
    if start is not None:
        start.give(model, names)
    begun = _untouched(model, histories, taken=start is not None)
    task = SequenceTask(model, histories, validation)
    run_id = _run_id(histories, n_items, config, content, start)
    report = train(model, task, config, checkpoint=checkpoint, run_id=run_id, progress=progress)
    _put_back(model, *begun)
    return model, report


def _untouched(model: SequenceModel, histories: Sequences, *, taken: bool) -> tuple[Tensor, Tensor]:
    """Items that no history holds, int64 [m], and the vectors of their own that they should end with, float32 [m, d]:
    those they begin with where these were `taken` over, else none at all, so that a new item is its content alone."""
    unseen = torch.from_numpy(np.flatnonzero(np.bincount(histories.items, minlength=model.n_items) == 0))
    if model.ids is None:
        return unseen, torch.empty(len(unseen), 0)
    own = model.ids.weight[unseen].detach().clone()
    return unseen, own if taken else torch.zeros_like(own)


def _put_back(model: SequenceModel, unseen: Tensor, own: Tensor) -> None:
    """As a negative an unseen item was only ever pushed away, whatever it is."""
    if model.ids is not None:
        with torch.no_grad():
            model.ids.weight[unseen] = own


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


def _run_id(
    histories: Sequences,
    n_items: int,
    config: SequenceConfig,
    content: Float32Array | None,
    start: SequenceWeights | None,
) -> str:
    digest = hashlib.blake2b(f"{n_items} {config.model_dump_json()}".encode(), digest_size=16)
    for array in (histories.items, histories.offsets, histories.groups, content):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).data)
    digest.update(b"-" if start is None else start.digest().encode())
    return digest.hexdigest()
