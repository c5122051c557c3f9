"""Fine-tuning as a run folder: everything a run needed, did and found, so that it can be read, repeated and used.

finetune.toml       the settings, whole           run.json            data, versions, seconds, what learned
refused.jsonl       rows left out, with reasons   parts.parquet       which row was in which part
curves.jsonl        figures of every evaluation   tensorboard/        the same, for TensorBoard
model/ model-2/ ..  the tuned model, or several   encoder/            bi-encoders: a folder `[text] model` can name
predictions.parquet of the test part              metrics.json        of validation and test, by segment, harmed
examples.parquet    the table, of a source        run-id              of settings, rows and models that were read
curves.svg  reliability.svg                       card.md             all of this for a reader
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from endcap import __version__
from endcap.app.finetune_measure import Measures
from endcap.app.finetune_report import write_report
from endcap.app.finetune_settings import as_toml
from endcap.app.finetune_start import CHECKPOINT, FACTS, TABLE, Data, Source, Start, begin, sweep
from endcap.core.artifacts import replace_atomically
from endcap.core.errors import EndcapError
from endcap.core.types import Float32Array
from endcap.models import distributed
from endcap.models.config import MEMBERS_APART
from endcap.models.finetune.config import LOWER_IS_BETTER, FinetuneConfig
from endcap.models.finetune.examples import Examples
from endcap.models.finetune.heads import BiModel
from endcap.models.finetune.tasks import TuneTask
from endcap.models.finetune.tracking import Log, tracking
from endcap.models.finetune.tuned import READING
from endcap.models.finetune.tuner import Outcome, tune
from endcap.models.loop import Progress, product_type

Tell = Callable[..., None]
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "polars", "scikit-learn")
METRICS = "metrics.json"


@dataclass(slots=True)
class Run:
    """folder: of the run. metrics: part ("valid", "test", "test: typos" ...) -> name -> value. first: whether this
    process measured and wrote the run; of several only one does, and the others' have no metrics."""

    folder: Path
    config: FinetuneConfig
    outcomes: list[Outcome]
    metrics: dict[str, dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)
    first: bool = True


def finetune(
    data: Data,
    config: FinetuneConfig,
    folder: Path,
    *,
    tell: Tell = lambda *_: None,
    at_evaluation: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> Run:
    """Tune, measure once on the test part, and write the run folder, which is made where it is missing.

    data: a file (see `models.finetune.examples`), a table at hand, or a source, whose table the run keeps. An
    interrupted run goes on from its last evaluation if settings, data and the models it reads are the same.
    at_evaluation: called with each evaluation's metrics; may raise to end the run. CallerError where the folder holds
    another run; DataError where there is too little to learn from. A run that is refused leaves no folder behind.
    """
    distributed.join()
    first, made = distributed.rank() == 0, not folder.exists()
    try:
        return _finetune(data, config, folder, tell, at_evaluation)
    except EndcapError:
        if first and made:
            sweep(folder)
        raise
    finally:
        distributed.leave()


def _finetune(
    data: Data,
    config: FinetuneConfig,
    folder: Path,
    tell: Tell,
    at_evaluation: Callable[[dict[str, float]], None],
) -> Run:
    first = distributed.rank() == 0
    tell = tell if first else lambda *_: None
    tell("read the examples", 0.0)
    start = begin(data, config, folder)
    with tracking(folder, config, start.run_id) if first else nullcontext(lambda step, figures: None) as log:
        members = [_member(config, member) for member in range(config.ensemble)]
        outcomes = [
            _tune_one(start, ours, folder, member, tell, log, at_evaluation) for member, ours in enumerate(members)
        ]
    facts = _facts(data, start, config, outcomes)
    distributed.leave()  # what follows is the first process's alone
    run = Run(folder, config, outcomes, {}, facts, first)
    if first:
        run.metrics, predicted = _measured(outcomes, start.examples, start.measures, tell)
        _write(run, start.examples, predicted, start.measures, start.run_id)
    return run


def finished(folder: Path, config: FinetuneConfig, run_id: str) -> Run | None:
    """The run that the folder holds, if it is whole and this one. Its models are not loaded."""
    if not (folder / FACTS).is_file():
        return None
    facts = msgspec.json.decode((folder / FACTS).read_bytes(), type=dict[str, Any])
    if facts.pop("run_id", "") != run_id:
        return None
    metrics = msgspec.json.decode((folder / METRICS).read_bytes(), type=dict[str, dict[str, float]])
    return Run(folder, config, [], metrics, facts)


def _tune_one(
    start: Start,
    config: FinetuneConfig,
    folder: Path,
    member: int,
    tell: Tell,
    log: Log,
    at_evaluation: Callable[[dict[str, float]], None],
) -> Outcome:
    """One model of the ensemble; curves of the first are what a tracker shows."""
    step = 0

    def progress(at: Progress, task: TuneTask) -> None:
        nonlocal step
        sign = -1 if config.metric in LOWER_IS_BETTER else 1
        best = "" if at.metric is None else f", best {config.metric} so far {sign * at.metric:.4f}"
        stage = f"tune{f' model {member + 1}' if config.ensemble > 1 else ''}, part {at.epoch} of {at.epochs}"
        tell(stage, at.step / max(1, at.steps), f"loss {at.loss:.3f}{best}")
        step = max(step, task.before + at.step)
        if not member and (at.step % 10 == 0 or at.step == at.steps):
            log(step, {"train/loss": at.loss})

    def evaluated(number: int, metrics: dict[str, float]) -> None:
        if not member:
            log(step, {f"valid/{name}": value for name, value in metrics.items()})
        at_evaluation(metrics)

    beside = f"{CHECKPOINT}-{member + 1}-{distributed.rank()}.safetensors"
    return tune(
        start.examples,
        config,
        start.measures.measure,
        checkpoint=folder / beside,
        run_id=f"{start.run_id} {member} {distributed.processes()}",
        progress=progress,
        evaluated=evaluated,
    )


def _member(config: FinetuneConfig, place: int) -> FinetuneConfig:
    seed = config.train.seed + MEMBERS_APART * place
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


def _measured(
    outcomes: list[Outcome], examples: Examples, measures: Measures, tell: Tell
) -> tuple[dict[str, dict[str, float]], Float32Array]:
    """Metrics of validation, of test, of its segments and of harmed test texts; and what was predicted for the test."""

    def predict(frame: pl.DataFrame) -> Float32Array:
        first, *others = (outcome.task for outcome in outcomes)
        return first.predict_together(others, frame)

    metrics: dict[str, dict[str, float]] = {}
    predicted = np.zeros(0, np.float32)
    for name, frame in (("valid", examples.valid), ("test", examples.test)):
        if frame.height:
            tell(f"measure on {name}", 0.0)
            predicted = predict(frame)
            metrics[name] = measures.measure(frame, predicted)
    if examples.test.height:
        metrics |= measures.segments(examples.test, predicted)
        for name, harmed in measures.harmed(examples):
            tell(f"measure with {name}", 0.0)
            metrics[f"test: {name}"] = measures.measure(harmed, predict(harmed))
    return metrics, predicted if examples.test.height else np.zeros(0, np.float32)


def _write(run: Run, examples: Examples, predicted: Float32Array, measures: Measures, run_id: str) -> None:
    """Models first, then what was found, and `run.json` last: a folder that has it is whole."""
    folder = run.folder
    replace_atomically(folder / "finetune.toml", as_toml(run.config).encode())
    examples.refused.write_ndjson(folder / "refused.jsonl")
    parts = [("train", examples.train), ("valid", examples.valid), ("test", examples.test)]
    pl.concat([frame.select("row", part=pl.lit(part)) for part, frame in parts]).sort("row").write_parquet(
        folder / "parts.parquet"
    )
    if examples.test.height:
        columns = predicted.tolist() if predicted.ndim == 1 else list(map(list, predicted))
        examples.test.with_columns(predicted=pl.Series(columns)).write_parquet(folder / "predictions.parquet")
    replace_atomically(folder / METRICS, _pretty(run.metrics))
    write_report(run, examples, predicted, measures)
    for place, outcome in enumerate(run.outcomes):
        outcome.tuned.with_other = "other" in examples.train.columns and run.config.task.kind in READING
        outcome.tuned.save(folder / ("model" if not place else f"model-{place + 1}"))
    first = run.outcomes[0].tuned
    if isinstance(first.net, BiModel):
        run.facts["encoder"] = first.export_encoder(folder / "encoder")
    replace_atomically(folder / FACTS, _pretty(run.facts | {"run_id": run_id}))
    for checkpoint in folder.glob(f"{CHECKPOINT}-*"):
        checkpoint.unlink()


def _facts(data: Data, start: Start, config: FinetuneConfig, outcomes: list[Outcome]) -> dict[str, Any]:
    """What it takes to repeat the run, and how it went."""
    first, examples = outcomes[0], start.examples
    device = next(first.tuned.net.parameters()).device.type
    return {
        **_origin(data),
        "digests": start.digests,
        "rows": {
            "train": examples.train.height,
            "valid": examples.valid.height,
            "test": examples.test.height,
            "refused": examples.refused.height,
        },
        "versions": {"endcap": __version__, "python": platform.python_version(), **_versions()},
        "processes": distributed.processes(),
        "device": device,
        "precision": str(product_type(config.train, device)).removeprefix("torch."),
        "seconds": round(sum(outcome.report.seconds for outcome in outcomes), 1),
        "stopped": [outcome.report.stopped for outcome in outcomes],
        "evaluations": [outcome.metrics for outcome in outcomes],
        "best_evaluation": [outcome.report.best_epoch for outcome in outcomes],
        "learns": first.learns,
        "parameters": first.parameters,
        "labels": list(first.tuned.labels),
        "notes": list(dict.fromkeys(note for outcome in outcomes for note in outcome.notes)),
    }


def _origin(data: Data) -> dict[str, str]:
    """data: where the examples are from. table: what to name in the command that repeats the run."""
    if isinstance(data, Path):
        return {"data": str(data.resolve()), "table": str(data.resolve())}
    if isinstance(data, Source):
        return {"data": data.name, "table": TABLE}
    return {"data": "a table at hand", "table": "DATA"}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
