"""The training loop: AdamW, warm-up then cosine, clipping, early stopping, checkpoints, a time budget.

A model brings a `Task` (its batches, its loss, its validation metric); the loop knows nothing else of it. Everything
random in an epoch follows from the seed and the epoch's number, so a run that was killed and resumed from its last
whole epoch ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from endcap.core.determinism import rng
from endcap.core.errors import ServiceError
from endcap.models.checkpoint import Checkpoint, EpochRecord, Trace, read_checkpoint, write_checkpoint
from endcap.models.config import LoopConfig

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)
Stop = Literal["finished", "patience", "time"]


class SizedIterable(Protocol[B_co]):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[B_co]: ...


class Task(Protocol[B]):
    """What is learned."""

    def batches(self, epoch: int) -> SizedIterable[B]:
        """The batches of an epoch (from 0); must depend on nothing but the epoch and the task's own seed."""
        ...

    def loss(self, batch: B) -> Tensor:
        """A scalar. Random draws come from torch's global generator, which the loop seeds."""
        ...

    def metric(self) -> float | None:
        """Validation quality, higher is better; None if there is nothing to validate on."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is. epoch, step: from 1. loss: mean of the epoch so far. metric: the best so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    metric: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went. best_epoch counts from 1, as do resumed_after (0: not resumed) and the records.

    seconds counts the interrupted parts too. stale_checkpoint: a checkpoint of another run was there and was replaced.
    """

    epochs: tuple[EpochRecord, ...]
    best_epoch: int
    best_metric: float | None
    seconds: float
    stopped: Stop
    resumed_after: int
    stale_checkpoint: bool


def train(
    model: nn.Module,
    task: Task[B],
    config: LoopConfig,
    *,
    checkpoint: Path | None = None,
    run_id: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Train in place; on return the model holds the weights of the best epoch (the last, without a metric).

    checkpoint: a file written after every epoch, and continued from if it is there and carries the same `run_id`
    (which should name the data and the settings). Raises ServiceError if the loss stops being a number.
    """
    run = _Run(model, task, config, progress)
    resumed_after, stale = 0, False
    if checkpoint is not None and checkpoint.exists():
        saved = read_checkpoint(checkpoint)
        stale = saved.trace.run_id != run_id
        if not stale:
            run.restore(saved)
            resumed_after = len(saved.trace.epochs)
    while (stopped := run.stop_reason()) is None:
        run.epoch()
        if checkpoint is not None:
            write_checkpoint(checkpoint, run.snapshot(run_id))
    model.load_state_dict(run.best_weights)
    model.eval()
    best = run.records[run.best_epoch - 1] if run.best_epoch else None
    return Report(
        tuple(run.records),
        run.best_epoch,
        best.metric if best else None,
        run.elapsed_s(),
        stopped,
        resumed_after,
        stale,
    )


def use_threads(threads: int) -> None:
    """For all of torch in this process. Runs are equal to the last bit only with equal numbers of threads.

    More threads than free cores is far slower than one: they wait for each other at every operation.
    """
    torch.set_num_threads(threads)


class _Run(Generic[B]):
    """The state of a run between epochs, and how to go through one."""

    def __init__(
        self, model: nn.Module, task: Task[B], config: LoopConfig, progress: Callable[[Progress], None] | None
    ) -> None:
        self.model, self.task, self.config, self.progress = model, task, config, progress
        self.optimiser = adamw(model, config)
        self.records: list[EpochRecord] = []
        self.best_epoch = 0
        self.best_weights = _copy(model.state_dict())
        self._started_s, self._earlier_s = time.monotonic(), 0.0

    def elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started_s

    def stop_reason(self) -> Stop | None:
        done = len(self.records)
        if done >= self.config.epochs:
            return "finished"
        if done and self.records[-1].metric is not None and done - self.best_epoch >= self.config.patience:
            return "patience"
        return "time" if self._out_of_time() else None

    def epoch(self) -> None:
        number = len(self.records)
        torch.manual_seed(int(rng(self.config.seed, f"epoch {number}").integers(2**62)))
        self.model.train()
        loss = self._steps(number, self.task.batches(number))
        self.model.eval()
        with torch.inference_mode():
            metric = self.task.metric()
        self.records.append(EpochRecord(loss, metric, self.elapsed_s()))
        best = self.records[self.best_epoch - 1].metric if self.best_epoch else None
        if metric is None or best is None or metric > best:
            self.best_epoch = len(self.records)
            self.best_weights = _copy(self.model.state_dict())

    def snapshot(self, run_id: str) -> Checkpoint:
        trace = Trace(run_id, tuple(self.records), self.best_epoch, self.elapsed_s())
        return Checkpoint(trace, self.model.state_dict(), self.best_weights, self.optimiser.state_dict()["state"])

    def restore(self, saved: Checkpoint) -> None:
        self.model.load_state_dict(saved.weights)
        self.optimiser.load_state_dict(
            {"state": saved.optimiser, "param_groups": self.optimiser.state_dict()["param_groups"]}
        )
        self.records, self.best_epoch = list(saved.trace.epochs), saved.trace.best_epoch
        self.best_weights, self._earlier_s = saved.best_weights, saved.trace.elapsed_s

    def _steps(self, number: int, batches: SizedIterable[B]) -> float:
        """One pass over the batches; the mean loss."""
        steps, total = len(batches), 0.0
        for step, batch in enumerate(batches, start=1):
            self._set_lr((number + (step - 1) / steps) / self.config.epochs)
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.task.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
            self.optimiser.step()
            total += loss.item()
            if not math.isfinite(total):
                raise ServiceError(
                    "The training loss is no longer a number.",
                    where=f"epoch {number + 1}, step {step}",
                    next_step="Lower the learning rate, or look for NaN in the content vectors.",
                )
            if self.progress is not None:
                metric = self.records[self.best_epoch - 1].metric if self.best_epoch else None
                self.progress(Progress(number + 1, self.config.epochs, step, steps, total / step, metric))
            if self._out_of_time():
                return total / step
        return total / max(steps, 1)

    def _set_lr(self, share: float) -> None:
        """share: of the run's epochs done; a time budget counts instead where it is nearer its end."""
        if self.config.max_seconds is not None:
            share = max(share, min(self.elapsed_s() / self.config.max_seconds, 1.0))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * warmup_cosine(share, self.config.warmup_share)

    def _out_of_time(self) -> bool:
        return self.config.max_seconds is not None and self.elapsed_s() >= self.config.max_seconds


def warmup_cosine(share: float, warmup_share: float) -> float:
    """The learning rate as a share of its peak: linear up to `warmup_share` of the run, then half a cosine to 0."""
    if share < warmup_share:
        return max(share / warmup_share, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (share - warmup_share) / (1 - warmup_share)))


def adamw(model: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) in its fused form: one pass over memory, 15 times faster on a large table."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    plain = [p for p in trained if p.ndim < 2 or id(p) in embeddings]
    decayed = [p for p in trained if p.ndim >= 2 and id(p) not in embeddings]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.lr, fused=True)


def _copy(weights: Iterable[tuple[str, Tensor]] | dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in dict(weights).items()}
