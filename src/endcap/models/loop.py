"""The training loop: optimiser, schedule, accumulation, mixed precision, clipping, averaging of weights, early
stopping, checkpoints, a time budget; in one process or several.

A model brings a `Task` (its batches, its loss, its validation metric); the loop knows nothing else of it. Everything
random in an epoch follows from the seed and the epoch's number, so a run that was killed and resumed from its last
whole epoch ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from endcap.core.determinism import rng
from endcap.core.errors import ServiceError
from endcap.encoders.precision import native_bfloat16
from endcap.models.checkpoint import Checkpoint, EpochRecord, Trace, read_checkpoint, write_checkpoint
from endcap.models.config import LoopConfig
from endcap.models.distributed import any_of, copy_of, held, like, local, put, rank, same, trained
from endcap.models.optimisers import make_optimiser, set_rate

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


Backward = Callable[[Callable[[], Tensor], Callable[[Tensor], None]], Tensor]


def plain(loss: Callable[[], Tensor], backward: Callable[[Tensor], None]) -> Tensor:
    """The ordinary way to a batch's gradients. Another (`finetune.adversarial`) may ask for the loss several times."""
    found = loss()
    backward(found)
    return found


def train(
    model: nn.Module,
    task: Task[B],
    config: LoopConfig,
    *,
    checkpoint: Path | None = None,
    run_id: str = "",
    progress: Callable[[Progress], None] | None = None,
    gradients: Backward = plain,
    scale: Callable[[str], float] = lambda _: 1.0,
    after_step: Callable[[int], None] = lambda _: None,
    pieces: Callable[[B], Sequence[tuple[B, float]]] = lambda batch: ((batch, 1.0),),
) -> Report:
    """Train in place; on return the model holds the weights of the best epoch (the last, without a metric).

    checkpoint: a file written after every epoch, and continued from if it is there and carries the same `run_id`
    (which should name the data and the settings). scale: see `make_optimiser`. after_step: called with the number of
    steps taken, while the gradients are there. pieces: of a batch, with their weights in its loss, where it is too much
    at once. Raises ServiceError if the loss stops being a number.
    """
    run = _Run(model, task, config, progress, gradients, scale, after_step, pieces)
    saved = read_checkpoint(checkpoint) if checkpoint is not None and checkpoint.exists() else None
    resumed_after = len(saved.trace.epochs) if saved is not None and saved.trace.run_id == run_id else 0
    if not same(resumed_after):  # some processes were killed before they had written what others had
        resumed_after = 0
    stale = saved is not None and not resumed_after
    if saved is not None and resumed_after:
        run.restore(saved)
    del saved
    while (stopped := run.stop_reason()) is None:
        run.epoch()
        if checkpoint is not None:
            write_checkpoint(checkpoint, run.snapshot(run_id))
    put(model, run.best_weights)
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


def product_type(config: LoopConfig, device: str) -> torch.dtype:
    """device: where the model is, cpu or cuda."""
    if config.precision == "auto":
        return torch.bfloat16 if native_bfloat16("cuda" if device == "cuda" else "cpu") else torch.float32
    found: torch.dtype = getattr(torch, config.precision)
    return found


class _Run(Generic[B]):
    """The state of a run between epochs, and how to go through one."""

    def __init__(
        self,
        model: nn.Module,
        task: Task[B],
        config: LoopConfig,
        progress: Callable[[Progress], None] | None,
        gradients: Backward,
        scale: Callable[[str], float],
        after_step: Callable[[int], None],
        pieces: Callable[[B], Sequence[tuple[B, float]]],
    ) -> None:
        self.model, self.task, self.config, self.progress, self.gradients = model, task, config, progress, gradients
        self.after_step, self.pieces = after_step, pieces
        self.optimiser = make_optimiser(model, config, scale)
        self.device = next(model.parameters()).device.type
        self.dtype = product_type(config, self.device)
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)
        self.records: list[EpochRecord] = []
        self.best_epoch, self.updates = 0, 0
        self.best_weights = copy_of(trained(model))
        self.mean_weights = copy_of(trained(model)) if config.average else {}
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
        torch.manual_seed(int(rng(self.config.seed, f"epoch {number}").integers(2**62)) + rank())
        self.model.train()
        loss = self._steps(number, self.task.batches(number))
        self.model.eval()
        latest = copy_of(trained(self.model)) if self.mean_weights else {}
        if latest:
            put(self.model, self.mean_weights)
        with torch.inference_mode(), torch.autocast(self.device, self.dtype, enabled=self.dtype == torch.bfloat16):
            metric = self.task.metric()
        self.records.append(EpochRecord(loss, metric, self.elapsed_s()))
        best = self.records[self.best_epoch - 1].metric if self.best_epoch else None
        if metric is None or best is None or metric > best:
            self.best_epoch = len(self.records)
            self.best_weights = copy_of(trained(self.model))
        if latest:
            put(self.model, latest)

    def snapshot(self, run_id: str) -> Checkpoint:
        """To be written at once: it holds the weights and the optimiser's state themselves, not copies."""
        trace = Trace(
            run_id, tuple(self.records), self.best_epoch, self.elapsed_s(), self.updates, self.scaler.get_scale()
        )
        state = {number: held(entries) for number, entries in self.optimiser.state_dict()["state"].items()}
        return Checkpoint(trace, held(trained(self.model)), self.best_weights, self.mean_weights, state)

    def restore(self, saved: Checkpoint) -> None:
        put(self.model, saved.weights)
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        state = {
            number: {name: like(shard, parameters[number]) for name, shard in entries.items()}
            for number, entries in saved.optimiser.items()
        }
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": saved.trace.scale})
        self.records, self.best_epoch = list(saved.trace.epochs), saved.trace.best_epoch
        self.best_weights, self.mean_weights = saved.best_weights, saved.mean_weights
        self.updates, self._earlier_s = saved.trace.updates, saved.trace.elapsed_s

    def _steps(self, number: int, batches: SizedIterable[B]) -> float:
        """One pass over the batches; the mean loss."""
        steps, step, total = len(batches), 0, 0.0
        for group in _groups(batches, self.config.accumulate):
            self._set_lr((number + step / steps) / self.config.epochs)
            total += self._step(group)
            step += len(group)
            if any_of(not math.isfinite(total)):
                raise ServiceError(
                    "The training loss is no longer a number.",
                    where=f"epoch {number + 1}, step {step}",
                    next_step="Lower the learning rate, or look for NaN in the content vectors.",
                )
            if self.progress is not None:
                metric = self.records[self.best_epoch - 1].metric if self.best_epoch else None
                self.progress(Progress(number + 1, self.config.epochs, step, steps, total / step, metric))
            if self._out_of_time():
                break
        return total / max(step, 1)

    def _step(self, group: Sequence[B]) -> float:
        """One change of the weights from the batches of a group; the sum of their losses."""
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for piece, share in [found for batch in group for found in self.pieces(batch)]:
            weight = share / len(group)
            loss = self.gradients(
                lambda piece=piece: self._loss(piece),  # type: ignore[misc]
                lambda loss, weight=weight: self.scaler.scale(loss * weight).backward(),  # type: ignore[misc]
            )
            total += share * loss.item()
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.updates += 1
        self._average()
        self.after_step(self.updates)
        return total

    def _average(self) -> None:
        """The running mean forgets faster in the beginning, when the weights still are far from where they end."""
        decay = min(self.config.average, self.updates / (self.updates + 10))
        for name, tensor in trained(self.model).items() if self.mean_weights else ():
            if tensor.is_floating_point():
                self.mean_weights[name].lerp_(local(tensor).detach(), 1 - decay)

    def _loss(self, batch: B) -> Tensor:
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            return self.task.loss(batch)

    def _set_lr(self, share: float) -> None:
        """share: of the run's epochs done; a time budget counts instead where it is nearer its end."""
        if self.config.max_seconds is not None:
            share = max(share, min(self.elapsed_s() / self.config.max_seconds, 1.0))
        set_rate(self.optimiser, self.config, share)

    def _out_of_time(self) -> bool:
        return self.config.max_seconds is not None and any_of(self.elapsed_s() >= self.config.max_seconds)


def _groups(batches: Iterable[B], size: int) -> Iterator[tuple[B, ...]]:
    """As they come, `size` at a time."""
    remaining = iter(batches)
    while group := tuple(islice(remaining, size)):
        yield group
