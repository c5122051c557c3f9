"""Fine-tuning as a run folder: everything a run needed, did and found, so that it can be read, repeated and used.

finetune.toml       the settings, whole           run.json            data, versions, seconds, what learned
refused.jsonl       rows left out, with reasons   parts.parquet       which row was in which part
curves.jsonl        figures of every evaluation   tensorboard/        the same, for TensorBoard
model/ model-2/ ..  the tuned model, or several   encoder/            bi-encoders: a folder `[text] model` can name
predictions.parquet of the test part              metrics.json        of validation and test, by segment, harmed
curves.svg  reliability.svg                       card.md             all of this for a reader
"""

from __future__ import annotations

import hashlib
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
from endcap.app.finetune_measure import Measures, measures_of
from endcap.app.finetune_report import write_report
from endcap.app.finetune_settings import as_toml
from endcap.core.artifacts import replace_atomically
from endcap.core.errors import CallerError, EndcapError
from endcap.core.types import Float32Array
from endcap.data import database
from endcap.models import distributed
from endcap.models.config import MEMBERS_APART
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import Examples, part_examples, read_examples
from endcap.models.finetune.heads import BiModel
from endcap.models.finetune.tasks import TuneTask
from endcap.models.finetune.tracking import CURVES, Log, tracking
from endcap.models.finetune.tuner import Outcome, tune
from endcap.models.loop import Progress

Tell = Callable[..., None]
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "scikit-learn")
CHECKPOINT = "checkpoint"


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
    data: Path | pl.DataFrame,
    config: FinetuneConfig,
    folder: Path,
    *,
    tell: Tell = lambda *_: None,
    at_evaluation: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> Run:
    """Tune, measure once on the test part, and write the run folder, which is made where it is missing.

    data: a file (see `models.finetune.examples`), or a table at hand. An interrupted run goes on from its last
    evaluation if settings and data are the same. at_evaluation: called with each evaluation's metrics; may raise to
    end the run. CallerError where the folder holds another run; DataError where there is too little to learn from.
    """
    distributed.join()
    try:
        return _finetune(data, config, folder, tell, at_evaluation)
    finally:
        distributed.leave()


def _finetune(
    data: Path | pl.DataFrame,
    config: FinetuneConfig,
    folder: Path,
    tell: Tell,
    at_evaluation: Callable[[dict[str, float]], None],
) -> Run:
    first = distributed.rank() == 0
    tell = tell if first else lambda *_: None
    tell("read the examples", 0.0)
    examples = read_examples(data, config) if isinstance(data, Path) else part_examples(data, config)
    measures = measures_of(examples, config)
    run_id = _run_id(examples, config)
    _claim(folder, run_id, first)
    outcomes = []
    with tracking(folder, config) if first else nullcontext(lambda step, figures: None) as log:
        for member in range(config.ensemble):
            ours = _member(config, member)
            outcomes.append(_tune_one(examples, ours, measures, folder, run_id, member, tell, log, at_evaluation))
    distributed.leave()  # what follows is the first process's alone
    run = Run(folder, config, outcomes, {}, _facts(data, examples, outcomes), first)
    if first:
        run.metrics, predicted = _measured(outcomes, examples, measures, tell)
        _write(run, examples, predicted, measures, run_id)
    return run


def _tune_one(
    examples: Examples,
    config: FinetuneConfig,
    measures: Measures,
    folder: Path,
    run_id: str,
    member: int,
    tell: Tell,
    log: Log,
    at_evaluation: Callable[[dict[str, float]], None],
) -> Outcome:
    """One model of the ensemble; curves of the first are what a tracker shows."""
    step = 0

    def progress(at: Progress, task: TuneTask) -> None:
        nonlocal step
        best = "" if at.metric is None else f", best {config.metric} so far {abs(at.metric):.4f}"
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
        examples,
        config,
        measures.measure,
        checkpoint=folder / beside,
        run_id=f"{run_id} {member} {distributed.processes()}",
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
        found: Float32Array = np.mean([outcome.task.predict(frame) for outcome in outcomes], axis=0)
        return found

    metrics: dict[str, dict[str, float]] = {}
    predicted = np.zeros(0, np.float32)
    for name, frame in (("valid", examples.valid), ("test", examples.test)):
        if frame.height:
            tell(f"measure on {name}", 0.0)
            predicted = predict(frame)
            metrics[name] = measures.measure(frame, predicted)
    if examples.test.height:
        metrics |= measures.segments(examples.test, predicted)
        for name, harmed in measures.harmed(examples, outcomes[0].tuned):
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
    replace_atomically(folder / "metrics.json", _pretty(run.metrics))
    write_report(run, examples, predicted, measures)
    for place, outcome in enumerate(run.outcomes):
        outcome.tuned.save(folder / ("model" if not place else f"model-{place + 1}"))
    first = run.outcomes[0].tuned
    if isinstance(first.net, BiModel):
        run.facts["encoder"] = first.export_encoder(folder / "encoder")
    replace_atomically(folder / "run.json", _pretty(run.facts | {"run_id": run_id}))
    for checkpoint in folder.glob(f"{CHECKPOINT}-*"):
        checkpoint.unlink()


def _facts(data: Path | pl.DataFrame, examples: Examples, outcomes: list[Outcome]) -> dict[str, Any]:
    first = outcomes[0]
    return {
        "data": str(data.resolve()) if isinstance(data, Path) else "a table at hand",
        "rows": {
            "train": examples.train.height,
            "valid": examples.valid.height,
            "test": examples.test.height,
            "refused": examples.refused.height,
        },
        "versions": {"endcap": __version__, "python": platform.python_version(), **_versions()},
        "seconds": round(sum(outcome.report.seconds for outcome in outcomes), 1),
        "stopped": [outcome.report.stopped for outcome in outcomes],
        "evaluations": [outcome.metrics for outcome in outcomes],
        "best_evaluation": [outcome.report.best_epoch for outcome in outcomes],
        "learns": first.learns,
        "parameters": first.parameters,
        "labels": list(first.tuned.labels),
        "notes": list(dict.fromkeys(note for outcome in outcomes for note in outcome.notes)),
    }


def _claim(folder: Path, run_id: str, first: bool) -> None:
    """Make the folder ours, or find it ours already. A run that ended, or that can be gone on with, is never written
    over. Of several processes the first does so, and the others end where it cannot."""
    wrong: EndcapError | None = None
    try:
        if first:
            _claim_alone(folder, run_id)
    except EndcapError as error:
        wrong = error
    if distributed.any_of(wrong is not None):
        raise wrong or CallerError("The first process cannot write into the folder.", where=str(folder))


def _claim_alone(folder: Path, run_id: str) -> None:
    database.make_folder(folder)
    done, begun = folder / "run.json", folder / "run-id"
    if done.exists():
        raise CallerError(
            "The folder holds a finished run.", where=str(folder), next_step="Name another folder after --run."
        )
    ours = begun.exists() and begun.read_text("utf-8") == run_id
    if not ours and any(folder.glob(f"{CHECKPOINT}-*.safetensors")):
        raise CallerError(
            "The folder holds an interrupted run of other data or settings.",
            where=str(folder),
            next_step="Go on with those, or name another folder after --run.",
        )
    if not ours:
        replace_atomically(begun, run_id.encode())
        (folder / CURVES).unlink(missing_ok=True)


def _run_id(examples: Examples, config: FinetuneConfig) -> str:
    """16 hexadecimal digits of the settings and of every row."""
    digest = hashlib.blake2b(config.model_dump_json().encode(), digest_size=8)
    for frame in (examples.train, examples.valid, examples.test):
        digest.update(frame.hash_rows(seed=0).to_numpy().tobytes())
    return digest.hexdigest()


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
