"""Curves while a run goes on: TensorBoard event files, Weights & Biases, and JSON lines, which need neither.

A run that is gone on with takes some steps again: what was written of them before is cut off, in each.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import MissingExtraError
from endcap.models.finetune.config import FinetuneConfig

CURVES = "curves.jsonl"
TRACKED = ("tensorboard", "wandb")  # folders
Log = Callable[[int, Mapping[str, float]], None]
Begin = Callable[[int], AbstractContextManager[Log]]


@contextmanager
def tracking(folder: Path, config: FinetuneConfig, run_id: str) -> Iterator[Log]:
    """Gives a function that takes a step and its figures by name, such as "train/loss". Nothing is written before it is
    called, and then nothing stays of that step and later ones. MissingExtraError where a package is missing."""
    trackers = [_lines(folder)]
    if config.track.tensorboard:
        trackers.append(_tensorboard(folder))
    if config.track.wandb:
        trackers.append(_wandb(folder, config, run_id))
    logs: list[Log] = []
    with ExitStack() as stack:

        def log(step: int, figures: Mapping[str, float]) -> None:
            if not logs:
                logs.extend([stack.enter_context(begin(step)) for begin in trackers])
            for one in logs:
                one(step, figures)

        yield log


def _lines(folder: Path) -> Begin:
    path = folder / CURVES

    @contextmanager
    def begin(first: int) -> Iterator[Log]:
        before = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        replace_atomically(path, b"".join(line for line in before if _step(line) < first))
        with path.open("ab") as file:

            def log(step: int, figures: Mapping[str, float]) -> None:
                file.write(msgspec.json.encode({"step": step, **figures}) + b"\n")
                file.flush()

            yield log

    return begin


def _step(line: bytes) -> float:
    """Infinite where the line was not written whole."""
    try:
        return msgspec.json.decode(line, type=dict[str, float | None])["step"] or 0
    except msgspec.DecodeError:
        return float("inf")


def _tensorboard(folder: Path) -> Begin:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "finetune") from error

    @contextmanager
    def begin(first: int) -> Iterator[Log]:
        writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

        def log(step: int, figures: Mapping[str, float]) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

        try:
            yield log
        finally:
            writer.close()

    return begin


def _wandb(folder: Path, config: FinetuneConfig, run_id: str) -> Begin:
    """There, a run that is gone on with is the same run, which leaves out steps that it has."""
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError("wandb", "wandb") from error
    mode: Any = os.environ.get("WANDB_MODE", "offline")
    name = hashlib.blake2b(f"{run_id} {folder.resolve()}".encode(), digest_size=8).hexdigest()
    settings = config.model_dump(mode="json")

    @contextmanager
    def begin(_: int) -> Iterator[Log]:
        run = wandb.init(project="endcap", dir=str(folder), config=settings, mode=mode, id=name, resume="allow")
        try:
            yield lambda step, figures: run.log(dict(figures), step=step)
        finally:
            run.finish()

    return begin
