"""One tuning, from parted examples to a model that holds its best weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from endcap.core.errors import CallerError, ServiceError
from endcap.models import distributed
from endcap.models.finetune.adversarial import Adversary
from endcap.models.finetune.asking import outputs
from endcap.models.finetune.augment import Augmenter, Synonyms, hook
from endcap.models.finetune.backbone import blocks_of
from endcap.models.finetune.batches import Batches
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import Examples
from endcap.models.finetune.heads import LEVEL_RATE
from endcap.models.finetune.labels import labels_of
from endcap.models.finetune.masked import MaskedModel, MaskedRewriter
from endcap.models.finetune.memory import within_memory
from endcap.models.finetune.methods import allot_rank, apply_method, penalty, shares
from endcap.models.finetune.pairs import Pairs
from endcap.models.finetune.tasks import Classification, Imitate, Masked, Matching, Measure, Rating, TuneTask
from endcap.models.finetune.tuned import (
    Net,
    Tuned,
    digest_of,
    load_tuned,
    new_net,
    run_model,
    start_backbone,
    start_masked,
)
from endcap.models.loop import Progress, Report, plain, train, use_threads

TAUGHT = ("classification", "interest", "ranking", "imitate")


@dataclass(frozen=True, slots=True)
class Outcome:
    """metrics: of every evaluation, in order. learns, parameters: how many there are of each. notes: what was done in
    another way than asked, and what uses less than all of it, in sentences."""

    tuned: Tuned
    task: TuneTask
    report: Report
    metrics: list[dict[str, float]]
    learns: int
    parameters: int
    notes: tuple[str, ...] = ()


Tell = Callable[[Progress, TuneTask], None]
Evaluated = Callable[[int, dict[str, float]], None]


def tune(
    examples: Examples,
    config: FinetuneConfig,
    measure: Measure,
    *,
    checkpoint: Path | None = None,
    run_id: str = "",
    progress: Tell | None = None,
    evaluated: Evaluated = lambda number, metrics: None,
) -> Outcome:
    """measure: see `TuneTask`. checkpoint, run_id: see `loop.train`. evaluated: called after each evaluation, with its
    number from 1. In several processes, each calls this alike; the first one's outcome holds the model.

    Where memory does not suffice for a batch, the run goes on from its last evaluation with batches in twice as many
    pieces, whose gradients add up to the same step. Raises CallerError where the config and the model do not fit,
    ServiceError if the loss stops being a number or if memory does not suffice for a single example.
    """
    _check(config)
    use_threads(config.train.threads)
    config = _in_passes(config, examples)
    parts = 1
    while True:
        attempt = partial(_tune, examples, config, measure, parts, checkpoint, run_id, progress, evaluated)
        outcome = within_memory(attempt)
        if outcome is not None:
            return outcome
        if parts >= config.train.batch_size or distributed.processes() > 1:
            raise ServiceError(
                "Memory does not suffice for a single example."
                if distributed.processes() == 1
                else "Memory does not suffice for a batch.",
                where="train.batch_size",
                next_step="Lower base.max_length or train.batch_size, set base.gradient_checkpointing, or choose a "
                "smaller model or method.kind = lora.",
            )
        parts *= 2


def _tune(
    examples: Examples,
    config: FinetuneConfig,
    measure: Measure,
    parts: int,
    checkpoint: Path | None,
    run_id: str,
    progress: Tell | None,
    evaluated: Evaluated,
) -> Outcome:
    """One attempt, batches being read in so many parts."""
    torch.manual_seed(config.train.seed)
    tuned = _new(config, examples)
    tuned.net.to(_device())
    learns, parameters = shares(tuned.net)
    task = task_of(tuned, examples, measure)
    task.parts, task.evaluated = parts, evaluated
    if checkpoint is not None:
        task.remember(checkpoint.with_suffix(".jsonl"), run_id)
    if isinstance(task, Matching):
        task.set_level()
    gradients = plain if config.adversarial.kind == "none" else Adversary(_embedding(tuned.net), config.adversarial)
    distributed.shard(tuned.net, _blocks(tuned.net))
    report = train(
        tuned.net,
        task,
        config.train,
        checkpoint=checkpoint,
        run_id=run_id,
        progress=None if progress is None else lambda at: progress(at, task),
        gradients=gradients,
        scale=partial(_rate, task),
        after_step=lambda step: None if isinstance(tuned.net, MaskedModel) else allot_rank(tuned.net.backbone, step),
        pieces=task.pieces,
    )
    if distributed.processes() > 1:
        tuned = _gathered(tuned, examples)
        task.net = tuned.net
    metrics = [task.evaluations[number] for number in range(len(report.epochs)) if number in task.evaluations]
    return Outcome(tuned, task, report, metrics, learns, parameters, _notes(config, parts))


def _rate(task: TuneTask, parameter: str) -> float:
    """Of a parameter, by its name, as a multiple of the body's."""
    if ".body." in f".{parameter}":
        return 1.0
    if isinstance(task, Matching) and task.has_level:
        return LEVEL_RATE / task.config.train.lr
    return task.config.train.head_rate


def _notes(config: FinetuneConfig, parts: int) -> tuple[str, ...]:
    together = "Figures and answers are of all models together; "
    together += "`encoder/`, a judge, a teacher and a base take the first alone."
    notes = (together,) if config.ensemble > 1 else ()
    if parts == 1:
        return notes
    size = config.train.batch_size
    note = f"Memory did not suffice for {size} examples at once: they were read in {parts} pieces of about "
    note += f"{-(-size // parts)}, whose gradients add up to the same step"
    alone = {"pairs": "; a piece's negatives are its own", "imitate": "; a piece's texts are compared with its own"}
    return (note + alone.get(config.task.kind, "") + ".", *notes)


def _check(config: FinetuneConfig) -> None:
    """Raises CallerError where settings do not go together."""
    kind, method = config.task.kind, config.method.kind
    if kind == "masked" and method != "full":
        raise CallerError(
            f"Masked words are learned by the whole model, not by {method}.",
            where="method.kind",
            next_step='Choose `method.kind = "full"` for this task.',
        )
    if kind in ("pairs", "imitate") and method == "frozen":
        raise CallerError(
            f"Nothing is left to learn: {kind} has no head beside the frozen model.",
            where="method.kind",
            next_step="Choose lora, or another method.",
        )
    if kind == "ranking" and config.task.architecture == "bi" and method == "frozen":
        raise CallerError(
            "Nothing is left to learn that would change an order: a bi-encoder's vectors stay as they are.",
            where="method.kind",
            next_step='Choose lora, or another method, or `task.architecture = "cross"`.',
        )
    if method == "adalora" and distributed.processes() > 1:
        raise CallerError(
            "AdaLoRA allots rank in one process only.", where="method.kind", next_step="Choose lora for several."
        )
    if config.train.optimiser == "adafactor" and distributed.processes() > 1:
        raise CallerError(
            "Adafactor takes steps in one process only.",
            where="train.optimiser",
            next_step='Choose `train.optimiser = "adamw"` for several.',
        )
    if config.augment.share and config.augment.masked and not config.augment.masked_model:
        raise CallerError(
            "No model is named that fills in masked words.",
            where="augment.masked_model",
            next_step='Name a Hugging Face masked-word model, or a run of `task.kind = "masked"`.',
        )
    if config.distil.teacher and kind not in TAUGHT:
        raise CallerError(
            f"There is no teaching of {kind}.", where="distil.teacher", next_step=f"There is, of {', '.join(TAUGHT)}."
        )


def _in_passes(config: FinetuneConfig, examples: Examples) -> FinetuneConfig:
    """The loop's epochs are parts of a pass over the data, one for each evaluation."""
    batches = Batches(examples.train, config)
    fewest = min(batches.count(number) for number in range(config.train.epochs))
    parts = min(config.train.evaluations, fewest)
    changed = config.train.model_copy(update={"epochs": config.train.epochs * parts, "evaluations": parts})
    return config.model_copy(update={"train": changed})


def _steps(config: FinetuneConfig, examples: Examples) -> int:
    """Changes of the weights in the whole run, its epochs being parts of a pass."""
    loop, batches = config.train, Batches(examples.train, config)
    counts = [batches.count(number) for number in range(loop.epochs // loop.evaluations)]
    parts = [part for count in counts for part in np.array_split(np.arange(count), loop.evaluations)]
    return sum(math.ceil(len(part) / loop.accumulate) for part in parts)


def _new(config: FinetuneConfig, examples: Examples) -> Tuned:
    """The base with the method applied and a fresh head."""
    name = str(Path(config.base.name).resolve()) if Path(config.base.name).is_dir() else config.base.name
    if config.task.kind == "masked":
        return Tuned(config, start_masked(config, name), name, "")
    backbone = start_backbone(config, name)
    digest = "" if config.method.kind == "full" else digest_of(backbone)
    apply_method(backbone, config.method, _steps(config, examples))
    labels = labels_of(examples.train, config)
    net = new_net(config, backbone, len(labels) or 1)
    ratings = examples.train["rating"] if config.task.kind == "rating" else None
    mean, spread = (0.0, 1.0) if ratings is None else (_number(ratings.mean()), _number(ratings.std(ddof=0)) or 1.0)
    return Tuned(config, net, name, digest, labels, mean, spread)


def task_of(tuned: Tuned, examples: Examples, measure: Measure) -> TuneTask:
    config = tuned.config
    common = (tuned.net, config, examples.train, examples.valid, measure, _augmenter(tuned, examples))
    match config.task.kind:
        case "classification":
            task: TuneTask = Classification(
                *common, labels=tuned.labels, teacher=_taught(config, examples.train, tuned.labels)
            )
        case "rating":
            task = Rating(*common, mean=tuned.mean, spread=tuned.spread)
        case "interest" | "ranking":
            task = Matching(*common, teacher=_taught(config, examples.train))
        case "pairs":
            task = Pairs(*common)
        case "masked":
            task = Masked(*common)
        case "imitate":
            task = Imitate(*common, teach=_teacher(config))
    if not isinstance(tuned.net, MaskedModel):
        backbone = tuned.net.backbone
        task.penalty = lambda: penalty(backbone)
    return task


def _gathered(tuned: Tuned, examples: Examples) -> Tuned:
    """In the first process, the same model with all of its weights; the others keep their shards."""
    weights = distributed.whole(tuned.net)
    if distributed.rank() > 0:
        return tuned
    together = _new(tuned.config, examples)
    together.net.load_state_dict(weights)
    together.net.to(_device()).eval()
    return together


def _augmenter(tuned: Tuned, examples: Examples) -> Augmenter | None:
    config = tuned.config
    if not config.augment.share:
        return None
    rewrites = [hook(config.augment.hook)] if config.augment.hook else []
    if config.augment.masked:
        whole = config.base.model_copy(update={"layers": None, "gradient_checkpointing": False})
        model = start_masked(config.model_copy(update={"base": whole}), config.augment.masked_model)
        rewrites.append(MaskedRewriter(model, config.augment.words))
    synonyms = None
    if config.augment.synonyms:
        column = "candidate" if "candidate" in examples.train.columns else "text"
        synonyms = Synonyms.of(examples.train[column].to_list(), tuned.embed)
    return Augmenter(config.augment, synonyms, rewrites)


def _taught(config: FinetuneConfig, frame: pl.DataFrame, labels: tuple[str, ...] = ()) -> Tensor | None:
    """What the teacher says of the training rows, before its last step: [n, k] or [n]."""
    if not config.distil.teacher:
        return None
    folder = run_model(config.distil.teacher)
    if folder is None:
        raise CallerError("The folder holds no finished run.", where=f"distil.teacher: {config.distil.teacher}")
    teacher = load_tuned(folder)
    if (teacher.config.task.kind, teacher.config.task.several) != (config.task.kind, config.task.several):
        raise CallerError(
            f"The teacher was tuned for another task, {teacher.config.task.kind}.", where="distil.teacher"
        )
    if teacher.labels != labels:
        raise CallerError(
            f"The teacher knows other classes: {', '.join(sorted({*teacher.labels} ^ {*labels}))}.",
            where="distil.teacher",
            next_step="Tune it on the same labels.",
        )
    return outputs(teacher.net, teacher.config, frame)


def _teacher(config: FinetuneConfig) -> Callable[[list[str]], Tensor]:
    """Gives texts the vectors of the teacher: a run, or the base with all of its layers."""
    name = config.distil.teacher or config.base.name
    whole = config.base.model_copy(update={"layers": None})
    backbone = start_backbone(config.model_copy(update={"base": whole}), name).eval()

    def vectors(texts: list[str]) -> Tensor:
        with torch.inference_mode():
            return torch.nn.functional.normalize(backbone(texts), dim=1).cpu()

    return vectors


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _embedding(net: Net) -> torch.nn.Module:
    body: Any = net.body if isinstance(net, MaskedModel) else net.backbone.body
    module: torch.nn.Module = body.get_input_embeddings()
    return module


def _blocks(net: Net) -> list[torch.nn.Module]:
    return list(blocks_of(net)[1])


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
