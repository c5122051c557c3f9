"""One tuning, from parted examples to a model that holds its best weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from endcap.core.errors import CallerError
from endcap.encoders.fingerprint import fingerprint
from endcap.models import distributed
from endcap.models.finetune.adversarial import Adversary
from endcap.models.finetune.augment import Augmenter, Synonyms, hook
from endcap.models.finetune.backbone import blocks_of
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import Examples
from endcap.models.finetune.masked import MaskedModel, MaskedRewriter
from endcap.models.finetune.methods import allot_rank, apply_method, penalty, shares
from endcap.models.finetune.pairs import Pairs
from endcap.models.finetune.pretrained import load_masked
from endcap.models.finetune.tasks import Classification, Imitate, Masked, Matching, Measure, Rating, TuneTask
from endcap.models.finetune.tuned import Net, Tuned, load_tuned, new_net, start_backbone
from endcap.models.loop import Progress, Report, plain, train, use_threads


@dataclass(frozen=True, slots=True)
class Outcome:
    """metrics: of every evaluation, in order. learns, parameters: how many there are of each."""

    tuned: Tuned
    task: TuneTask
    report: Report
    metrics: list[dict[str, float]]
    learns: int
    parameters: int


def tune(
    examples: Examples,
    config: FinetuneConfig,
    measure: Measure,
    *,
    checkpoint: Path | None = None,
    run_id: str = "",
    progress: Callable[[Progress, TuneTask], None] | None = None,
) -> Outcome:
    """measure: see `TuneTask`. checkpoint, run_id: see `loop.train`. In several processes, each calls this alike.

    Raises CallerError where the config and the model do not fit, ServiceError if the loss stops being a number.
    """
    use_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    config = _in_passes(config, examples)
    tuned = _new(config, examples)
    tuned.net.to("cuda" if torch.cuda.is_available() else "cpu")
    learns, parameters = shares(tuned.net)
    task = task_of(tuned, examples, measure)
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
        scale=lambda name: 1.0 if ".body." in name else config.train.head_rate,
        after_step=lambda step: None if isinstance(tuned.net, MaskedModel) else allot_rank(tuned.net.backbone, step),
    )
    if distributed.processes() > 1:
        tuned = _gathered(tuned, examples)
    return Outcome(tuned, task, report, task.metrics, learns, parameters)


def _in_passes(config: FinetuneConfig, examples: Examples) -> FinetuneConfig:
    """The loop's epochs are parts of a pass over the data, one for each evaluation."""
    parts = min(config.train.evaluations, max(1, examples.train.height // config.train.batch_size))
    changed = config.train.model_copy(update={"epochs": config.train.epochs * parts, "evaluations": parts})
    return config.model_copy(update={"train": changed})


def _new(config: FinetuneConfig, examples: Examples) -> Tuned:
    """The base with the method applied and a fresh head."""
    name = config.base.name
    if config.task.kind == "masked":
        return Tuned(config, load_masked(config.base, name), name, "")
    backbone = start_backbone(config, name)
    digest = "" if config.method.kind == "full" else fingerprint(backbone.body)
    batches = max(1, examples.train.height // config.train.batch_size)
    apply_method(backbone, config.method, max(1, config.train.epochs * batches // config.train.accumulate))
    labels = _labels(examples.train, config)
    net = new_net(config, backbone, len(labels) or 1)
    ratings = examples.train["rating"] if config.task.kind == "rating" else None
    mean, spread = (0.0, 1.0) if ratings is None else (_number(ratings.mean()), _number(ratings.std(ddof=0)) or 1.0)
    return Tuned(config, net, name, digest, labels, mean, spread)


def task_of(tuned: Tuned, examples: Examples, measure: Measure) -> TuneTask:
    config = tuned.config
    common = (tuned.net, config, examples.train, examples.valid, measure, _augmenter(tuned, examples))
    match config.task.kind:
        case "classification":
            task: TuneTask = Classification(*common, labels=tuned.labels, teacher=_taught(config, examples.train))
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
    """The same model with all of its weights in the first process; the others' hold what they began with."""
    weights = distributed.whole(tuned.net)
    together = _new(tuned.config, examples)
    if weights:
        together.net.load_state_dict(weights)
    together.net.eval()
    return together


def _labels(frame: pl.DataFrame, config: FinetuneConfig) -> tuple[str, ...]:
    if config.task.kind != "classification":
        return ()
    column = frame["label"].explode().drop_nulls() if config.task.several else frame["label"]
    return tuple(sorted(column.unique().to_list()))


def _augmenter(tuned: Tuned, examples: Examples) -> Augmenter | None:
    config = tuned.config
    if not config.augment.share:
        return None
    rewrites = [hook(config.augment.hook)] if config.augment.hook else []
    if config.augment.masked:
        name = config.augment.masked_model
        folder = Path(name) / "model"
        model = load_tuned(folder).net if folder.is_dir() else load_masked(config.base, name)
        if not isinstance(model, MaskedModel):
            raise CallerError(
                f"{name!r} is no masked-word model.",
                where="augment.masked_model",
                next_step='Name a Hugging Face masked-word model, or a run of `task.kind = "masked"`.',
            )
        rewrites.append(MaskedRewriter(model, config.augment.words))
    synonyms = None
    if config.augment.synonyms:
        column = "candidate" if "candidate" in examples.train.columns else "text"
        synonyms = Synonyms.of(examples.train[column].to_list(), tuned.embed)
    return Augmenter(config.augment, synonyms, rewrites)


def _taught(config: FinetuneConfig, frame: pl.DataFrame) -> Tensor | None:
    """What the teacher says of the training rows, before its last step: [n, k] or [n]."""
    if not config.distil.teacher:
        return None
    teacher = load_tuned(Path(config.distil.teacher) / "model")
    if teacher.config.task.kind != config.task.kind:
        raise CallerError(
            f"The teacher was tuned for {teacher.config.task.kind}, this is {config.task.kind}.",
            where="distil.teacher",
        )
    task = task_of(
        teacher.plain(), Examples(frame, frame.clear(), frame.clear(), frame.clear()), lambda rows, found: {}
    )
    if not isinstance(task, Classification | Matching):
        raise CallerError(f"There is no teaching of {config.task.kind}.", where="distil.teacher")
    return task.outputs(frame)


def _teacher(config: FinetuneConfig) -> Callable[[list[str]], Tensor]:
    """Gives texts the vectors of the teacher: a run, or the base with all of its layers."""
    name = config.distil.teacher or config.base.name
    whole = config.base.model_copy(update={"layers": None})
    backbone = start_backbone(config.model_copy(update={"base": whole}), name).eval()

    def vectors(texts: list[str]) -> Tensor:
        with torch.inference_mode():
            return torch.nn.functional.normalize(backbone(texts), dim=1).cpu()

    return vectors


def _embedding(net: Net) -> torch.nn.Module:
    body: Any = net.body if isinstance(net, MaskedModel) else net.backbone.body
    module: torch.nn.Module = body.get_input_embeddings()
    return module


def _blocks(net: Net) -> list[torch.nn.Module]:
    return list(blocks_of(net)[1])


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
