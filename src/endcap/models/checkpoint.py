"""A run of training as one safetensors file: weights, best weights, optimiser state, and what happened so far.

One file, replaced in one step, is either the old checkpoint or the new one whenever the writer is killed. The counters
are JSON in the file's header; there is no pickle, and no generator state is needed because every epoch is seeded anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from endcap.core.artifacts import write_atomically
from endcap.core.errors import ArtifactError

FORMAT = "2"
WEIGHTS, BEST, MEAN, OPTIMISER = "weights/", "best/", "mean/", "optimiser/"


class EpochRecord(msgspec.Struct, frozen=True):
    """loss: mean over the epoch. seconds: since the run began, at the epoch's end."""

    loss: float
    metric: float | None
    seconds: float


class Trace(msgspec.Struct, frozen=True):
    """What happened so far. best_epoch counts from 1; 0 before the first epoch has ended. scale: of a float16 loss."""

    run_id: str
    epochs: tuple[EpochRecord, ...]
    best_epoch: int
    elapsed_s: float
    updates: int = 0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """weights, best_weights: what is trained of a module's state dict. mean_weights: their running mean, empty without
    one. optimiser: parameter number -> state name -> tensor."""

    trace: Trace
    weights: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    mean_weights: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file at `path`; its folder is created where missing."""
    tensors = {WEIGHTS + name: tensor for name, tensor in checkpoint.weights.items()}
    tensors |= {BEST + name: tensor for name, tensor in checkpoint.best_weights.items()}
    tensors |= {MEAN + name: tensor for name, tensor in checkpoint.mean_weights.items()}
    for number, state in checkpoint.optimiser.items():
        tensors |= {f"{OPTIMISER}{number}/{name}": tensor for name, tensor in state.items()}
    header = {"format": FORMAT, "trace": msgspec.json.encode(checkpoint.trace).decode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    # to the file itself: as bytes in memory they would take what training needs
    write_atomically(path, lambda beside: safetensors.torch.save_file(_apart(tensors), beside, header))


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises ArtifactError if the file is damaged or of another format."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("format") != FORMAT:
            raise ArtifactError(
                f"The checkpoint has format {header.get('format')!r}; this version reads {FORMAT!r}.",
                where=str(path),
                next_step="Delete it and train from the start.",
            )
        trace = msgspec.json.decode(header["trace"], type=Trace)
    except (SafetensorError, msgspec.MsgspecError, KeyError) as error:
        raise ArtifactError(
            f"The checkpoint cannot be read: {error}.",
            where=str(path),
            next_step="Delete it and train from the start.",
        ) from error
    optimiser: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, OPTIMISER).items():
        number, state = name.split("/", 1)
        optimiser.setdefault(int(number), {})[state] = tensor
    return Checkpoint(trace, _under(tensors, WEIGHTS), _under(tensors, BEST), _under(tensors, MEAN), optimiser)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, and copied where two share memory, as an embedding and a language model's head do."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        found = tensor.detach().contiguous()
        place = found.untyped_storage().data_ptr()
        out[name] = found.clone() if place in seen else found
        seen.add(place)
    return out


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
