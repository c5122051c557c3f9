"""Pretraining: the sequence model alone, on a shop's whole log, written as weights that `sequence.start` begins from.

Where items are their content alone, the weights serve any shop whose catalogue the same encoder reads. One shopper in
ten keeps the last act apart, by which training stops and says how good the weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from endcap.app.config import Config
from endcap.app.content import Content, fit_content
from endcap.app.ingest import Progress
from endcap.app.run import learnable
from endcap.app.sequences import any_repeat, start_weights, trails
from endcap.core.determinism import seed_everything
from endcap.core.errors import CallerError, DataError
from endcap.core.types import Float32Array
from endcap.data import database
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.features.sessions import owned
from endcap.models.config import SequenceConfig
from endcap.models.loop import Progress as Step
from endcap.models.loop import Report, use_threads
from endcap.models.sequence_fit import train_sequence
from endcap.models.sequence_validation import Validation
from endcap.models.sequence_weights import Names, SequenceWeights
from endcap.models.windows import Sequences

if TYPE_CHECKING:
    from endcap.app.runtime import Shop

HELD_OUT_EVERY = 10
CHECKPOINT = "pretrain.safetensors"


@dataclass(frozen=True, slots=True)
class Pretrained:
    """folder: where the weights are. report: of the run; its metric is NDCG@10 on the acts kept apart, all items
    ranked, None where there were too few. bytes: of the folder's files."""

    folder: Path
    report: Report
    users: int
    items: int
    bytes: int


def pretrain(shop: Shop, out: Path, settings: Mapping[str, Any], *, progress: Progress) -> Pretrained:
    """Train on everything recorded and write the weights into `out`, a folder made where it is missing.

    An interrupted run goes on from its last whole epoch. CallerError for settings that cannot be, or where nothing has
    an order to learn; DataError where there is too little to learn from, or where items should be their content and
    have none.
    """
    config = _sequence_config(shop.config, settings)
    seed_everything(config.seed)
    start = start_weights(config, shop.folder)
    database.make_folder(out)
    table, histories = _read(shop, progress)
    content = _content(shop, table, config, progress)
    names = Names(table.ids.ids, "" if content is None else content.name)
    checkpoint = shop.folder / "checkpoints" / CHECKPOINT

    def tell(at: Step) -> None:
        progress("train the sequence model", (at.epoch - 1 + at.step / max(1, at.steps)) / at.epochs)

    weights, report = train_weights(
        histories,
        names,
        None if content is None else content.vectors,
        config,
        start,
        checkpoint=checkpoint,
        progress=tell,
    )
    with database.translated(out):
        weights.save(out)
    checkpoint.unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in out.iterdir())
    return Pretrained(out, report, histories.users, len(table), size)


def train_weights(
    histories: Sequences,
    names: Names,
    content: Float32Array | None,
    config: SequenceConfig,
    start: SequenceWeights | None = None,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Step], None] | None = None,
) -> tuple[SequenceWeights, Report]:
    """Weights of the epoch that does best on the acts kept apart. content: float32 [items, any], or None."""
    use_threads(1)
    past, validation = keep_apart(histories)
    model, report = train_sequence(
        past,
        len(names.items),
        config,
        content=content,
        validation=validation,
        names=names,
        start=start,
        checkpoint=checkpoint,
        progress=progress,
    )
    return SequenceWeights.of(model, names), report


def keep_apart(histories: Sequences) -> tuple[Sequences, Validation | None]:
    """The histories less the last act of one user in `HELD_OUT_EVERY` with three acts or more, and those acts as
    targets; None where there is no such user."""
    users = np.flatnonzero(np.diff(histories.offsets) >= 3)[::HELD_OUT_EVERY]
    if not len(users):
        return histories, None
    kept = np.ones(len(histories.items), np.bool_)
    kept[histories.offsets[users + 1] - 1] = False
    offsets = np.concatenate([[0], np.cumsum(kept)])[histories.offsets].astype(np.int64)
    groups = None if histories.groups is None else histories.groups[kept]
    past = Sequences(histories.items[kept], offsets, groups)
    contexts, targets = past.select(users), histories.items[~kept].astype(np.int64)
    repeat = any_repeat(contexts, np.split(targets, len(targets)))
    return past, Validation(contexts, targets, np.arange(len(users) + 1, dtype=np.int64), hide_seen=not repeat)


def _sequence_config(config: Config, settings: Mapping[str, Any]) -> SequenceConfig:
    """`[sequence]` with what differs; for other shops, unless ids are asked for. CallerError names a wrong key."""
    ids = settings.get("ids", False)
    ours = {**config.sequence.model_dump(), "seed": config.train.seed, "ids": ids, "turned": not ids}
    try:
        return SequenceConfig.model_validate({**ours, **settings})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors())
        raise CallerError(
            f"{wrong}.", where="sequence", next_step="All keys are in docs/reference/configuration.md."
        ) from error


def _read(shop: Shop, progress: Progress) -> tuple[ItemTable, Sequences]:
    progress("read the log", 0.0)
    log = owned(shop.store.events())
    learnable(log, shop.folder)
    ids = log.select(pl.col("item_id").drop_nulls().unique()).collect().to_series().to_list()
    table = ItemTable.build(shop.store.items(), ids)
    return table, trails(Histories.build(log, table.ids))


def _content(shop: Shop, table: ItemTable, config: SequenceConfig, progress: Progress) -> Content | None:
    """Of words alone: how words and pictures are fused is a shop's own, and others could not begin from the weights."""
    notes: list[str] = []
    of_words = shop.config.content.model_copy(update={"modalities": ("text",)})
    read = shop.config.model_copy(update={"content": of_words})
    content = fit_content(table, read, shop.folder, progress, notes, None)
    if content is None and not config.ids:
        raise DataError(
            f"Without ids an item is its content alone. {' '.join(notes)}",
            where=str(shop.folder),
            next_step="Ingest titles, or pretrain with ids, for this shop's own items only.",
        )
    return content
