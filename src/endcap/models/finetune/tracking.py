"""Curves while a run goes on: TensorBoard event files, Weights & Biases, and JSON lines, which need neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from endcap.core.errors import MissingExtraError
from endcap.models.finetune.config import FinetuneConfig

CURVES = "curves.jsonl"
Log = Callable[[int, Mapping[str, float]], None]


@contextmanager
def tracking(folder: Path, config: FinetuneConfig) -> Iterator[Log]:
    """Gives a function that takes a step and its figures by name, such as "train/loss"."""
    with ExitStack() as stack:
        logs = [stack.enter_context(_lines(folder))]
        if config.track.tensorboard:
            logs.append(stack.enter_context(_tensorboard(folder)))
        if config.track.wandb:
            logs.append(stack.enter_context(_wandb(folder, config)))

        def log(step: int, figures: Mapping[str, float]) -> None:
            for one in logs:
                one(step, figures)

        yield log


@contextmanager
def _lines(folder: Path) -> Iterator[Log]:
    with (folder / CURVES).open("ab") as file:

        def log(step: int, figures: Mapping[str, float]) -> None:
            file.write(msgspec.json.encode({"step": step, **figures}) + b"\n")
            file.flush()

        yield log


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Log]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "finetune") from error
    writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def log(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _wandb(folder: Path, config: FinetuneConfig) -> Iterator[Log]:
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError("wandb", "wandb") from error
    mode: Any = os.environ.get("WANDB_MODE", "offline")
    run = wandb.init(project="endcap", dir=str(folder), config=config.model_dump(mode="json"), mode=mode)
    try:
        yield lambda step, figures: run.log(dict(figures), step=step)
    finally:
        run.finish()
