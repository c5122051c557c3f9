"""The search for good settings of a tuning: trials by Optuna, poor ones ended early, kept in SQLite to be resumed.

study.db        every trial               search.json       trials, best settings, importances, what best/ measured
search.svg      what was found, and which settings mattered
best/           the run of the best settings, the only one that is measured on the test part; next/ until it is whole
search-id       of settings, rows and models; examples.parquet    the table, of a source
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import polars as pl
from pydantic import Field, model_validator

from endcap.app.finetune import Run, Tell, finetune, finished
from endcap.app.finetune_measure import Measures, measures_of
from endcap.app.finetune_report import pyplot, save_figure
from endcap.app.finetune_settings import checked
from endcap.app.finetune_start import (
    RUN_ID,
    TABLE,
    Data,
    Source,
    digests_of,
    model_digests,
    opened,
    rows_digest,
    run_id_of,
)
from endcap.app.finetune_study import (
    REASON,
    ended,
    importances_of,
    open_study,
    reason_of,
    requeue,
    run_trial,
    value_of,
)
from endcap.core.artifacts import replace_atomically
from endcap.core.errors import CallerError, ServiceError
from endcap.core.section import Section
from endcap.core.types import Float32Array
from endcap.data import database
from endcap.models.finetune.config import LOWER_IS_BETTER, FinetuneConfig, TaskKind
from endcap.models.finetune.examples import Examples
from endcap.models.finetune.tuner import tune

if TYPE_CHECKING:
    import optuna

SEARCH_ID = "search-id"
FIXED = {
    **dict.fromkeys(("task.kind", "task.several", "columns"), "the rows are read once, for one task"),
    **dict.fromkeys(("split", "train.seed"), "it decides which rows are in the test part, which no trial may read"),
    "train.metric": "trials are compared by it",
    "ensemble": "a trial tunes one model, whatever it says",
    "track": "a trial leaves no curves",
}
FIXED_OF: dict[TaskKind, dict[str, str]] = {
    "masked": dict.fromkeys(
        ("task.mask_share", "base.name", "base.max_length"), "it decides which words are hidden, and out of how many"
    ),
    "imitate": dict.fromkeys(
        ("distil.teacher", "base.pooling", "base.max_length"),
        "the teacher, which trials are measured against, is read by it",
    ),
}
Value = str | int | float | bool


class Range(Section):
    """What one setting may be: one of the choices, or a number from low to high, whole if both are."""

    choices: tuple[Value, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.choices) == (self.low is not None and self.high is not None):
            raise ValueError("give either choices, or low and high")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and not (self.low and self.low > 0):
            raise ValueError("only numbers above 0 have a log")
        return self

    def draw(self, trial: optuna.Trial, key: str) -> Value:
        if self.choices:
            chosen: Value = trial.suggest_categorical(key, self.choices)
            return chosen
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return int(trial.suggest_int(key, self.low, self.high, log=self.log))
        return float(trial.suggest_float(key, self.low, self.high, log=self.log))


class SearchConfig(Section):
    """`[search]` of a settings file. space: dotted key of any setting -> its range."""

    trials: int = Field(default=20, ge=1, description="settings that are tried, in all sittings together")
    sampler: Literal["tpe", "random"] = Field(default="tpe", description="tpe learns from the trials before")
    prune: bool = Field(default=True, description="end a trial that is behind the median of earlier ones")
    warmup: int = Field(default=5, ge=0, description="trials that are never ended early")
    space: dict[str, Range] = Field(
        default={"train.lr": Range(low=1e-5, high=1e-3, log=True)},
        description="dotted key of any setting -> its choices, or low, high and log",
    )


@dataclass(frozen=True, slots=True)
class Found:
    """best: the run of the best settings. values: of the trials, None where one was ended early or failed.
    importances: of each setting, adding up to 1; empty with too few trials. failed: number of a trial, as in the
    figure, -> what was wrong with its settings."""

    best: Run
    settings: dict[str, Value]
    values: list[float | None]
    importances: dict[str, float]
    failed: dict[int, str]


def search(
    data: Data, settings: Mapping[str, Any], config: SearchConfig, folder: Path, *, tell: Tell = lambda *_: None
) -> Found:
    """Try settings by validation, then tune once more with the best, and measure that on the test part.

    settings: nested, as in `finetune.toml`, from which each trial departs by what it draws. An interrupted search goes
    on from its finished trials, and one that ended goes on to more of them. A trial whose settings do not serve fails
    alone. CallerError where the space cannot be searched, or no trial came to its end.
    """
    base = checked(settings, {}, where="settings")
    for key in config.space:
        _try_key(settings, base, key, config.space[key])
    tell("read the examples", 0.0)
    examples, keep = opened(data, base, folder, begun=(folder / SEARCH_ID).exists())
    if not examples.valid.height:
        raise CallerError("There is no validation part to choose settings by.", where="split.shares")
    measures = measures_of(examples, base)
    _claim(folder, _identity(settings, base, config, examples), keep)
    study = open_study(folder, base, sampler=config.sampler, warmup=config.warmup)
    requeue(study)
    trial = partial(_trial, settings=settings, config=config, examples=examples, measures=measures, tell=tell)
    while (done := len(ended(study))) < config.trials:
        run_trial(study, partial(trial, stage=f"trial {done + 1} of {config.trials}"))
    importances = importances_of(study)
    failed = {trial.number + 1: said for trial in study.trials if (said := reason_of(trial))}
    _write(folder, study, base.metric, importances, None)
    if not any(trial.state.name == "COMPLETE" for trial in study.trials):
        raise CallerError(
            f"No trial came to its end. {next(iter(failed.values()), 'All were ended early.')}",
            where=str(folder),
            next_step="Search among other settings, in another folder.",
        )
    draw_search(folder / "search.svg", study, importances, base.metric)
    table = folder / TABLE if isinstance(data, Source) else data
    run = _tune_best(table, examples, checked(settings, study.best_params, where="settings"), folder, tell)
    _write(folder, study, base.metric, importances, run)
    return Found(run, dict(study.best_params), [value_of(trial) for trial in ended(study)], importances, failed)


def _trial(
    trial: optuna.Trial,
    *,
    settings: Mapping[str, Any],
    config: SearchConfig,
    examples: Examples,
    measures: Measures,
    stage: str,
    tell: Tell,
) -> float:
    """The best validation figure with the settings that the trial draws. Nothing is written and no test is read."""
    import optuna

    drawn = {key: choice.draw(trial, key) for key, choice in config.space.items()}
    ours, step = checked(settings, drawn, where="settings"), 0

    def measure(rows: pl.DataFrame, found: Float32Array) -> dict[str, float]:
        nonlocal step
        metrics = measures.measure(rows, found)
        step += 1
        trial.report(metrics[ours.metric], step)
        if config.prune and trial.should_prune():
            raise optuna.TrialPruned
        return metrics

    outcome = tune(
        examples,
        ours,
        measure,
        progress=lambda at, task: tell(stage, (at.epoch - 1 + at.step / max(1, at.steps)) / at.epochs, _shown(drawn)),
    )
    values = [value for metrics in outcome.metrics if math.isfinite(value := metrics[ours.metric])]
    if not values:
        raise ServiceError(f"{ours.metric} was no number at any evaluation.", where=_shown(drawn))
    return min(values) if ours.metric in LOWER_IS_BETTER else max(values)


def _tune_best(table: Data, examples: Examples, config: FinetuneConfig, folder: Path, tell: Tell) -> Run:
    """`best/`, where it is of these settings already; else it is tuned beside, and put there when it is whole."""
    best, beside = folder / "best", folder / "next" / "best"
    run_id = run_id_of(config, digests_of(examples, config))
    run = finished(best, config, run_id)
    if run is None:
        begun = beside / "run-id"
        if begun.exists() and begun.read_text("utf-8") != run_id:
            shutil.rmtree(beside)
        run = finished(beside, config, run_id) or finetune(table, config, beside, tell=tell)
        if best.exists():
            shutil.rmtree(best)
        beside.rename(best)
    shutil.rmtree(beside.parent, ignore_errors=True)
    return replace(run, folder=best)


def _write(folder: Path, study: optuna.Study, metric: str, importances: Mapping[str, float], run: Run | None) -> None:
    """`search.json`; `measured` is null until the best run is there."""
    complete = any(trial.state.name == "COMPLETE" for trial in study.trials)
    told = {
        "metric": metric,
        "settings": study.best_params if complete else None,
        "best": study.best_value if complete else None,
        "importances": importances,
        "measured": run.metrics if run else None,
        "trials": [
            {"settings": trial.params, "value": value_of(trial), "state": trial.state.name, REASON: reason_of(trial)}
            for trial in study.trials
        ],
    }
    replace_atomically(folder / "search.json", msgspec.json.format(msgspec.json.encode(told), indent=2))


def draw_search(path: Path, study: optuna.Study, importances: Mapping[str, float], metric: str) -> None:
    """Each trial and the best so far; beside it, how much each setting mattered."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    told = [(trial.number + 1, value) for trial in study.trials if (value := value_of(trial)) is not None]
    better: Callable[[float, float], float] = min if metric in LOWER_IS_BETTER else max
    best: list[float] = []
    for _, value in told:
        best.append(better(best[-1], value) if best else value)
    numbers = [number for number, _ in told]
    left.scatter(numbers, [value for _, value in told], label="trial")
    left.step(numbers, best, where="post", label="best so far")
    left.set(xlabel="trial", ylabel=metric)
    left.legend()
    names = list(importances)[::-1]
    right.barh(names, [importances[name] for name in names])
    right.set(xlabel="importance", xlim=(0, 1))
    save_figure(figure, path)


def _identity(
    settings: Mapping[str, Any], base: FinetuneConfig, config: SearchConfig, examples: Examples
) -> dict[str, str]:
    """What trials must have in common to be compared, by its name. More of them may be wanted later."""
    named = {key: choice.choices for key, choice in config.space.items() if key in ("base.name", "distil.teacher")}
    read = [base, *(checked(settings, {key: name}, where=key) for key, names in named.items() for name in names)]
    return {
        "settings": f"{base.model_dump_json()} {config.model_copy(update={'trials': 1}).model_dump_json()}",
        "data": rows_digest(examples),
        "base models": " ".join(digest for one in read for digest in model_digests(one).values()),
    }


def _claim(folder: Path, said: Mapping[str, str], keep: Callable[[], None]) -> None:
    """Make the folder ours, or find it ours already. keep: called where it becomes ours."""
    database.make_folder(folder)
    begun = folder / SEARCH_ID
    if (folder / RUN_ID).exists():
        raise CallerError("The folder holds a tuning.", where=str(folder), next_step="Name another folder after --run.")
    if not begun.exists():
        keep()
        replace_atomically(begun, "\n".join(said.values()).encode())
    there = dict(zip(said, begun.read_text("utf-8").splitlines(), strict=False))
    for what, ours in said.items():
        if there.get(what) != ours:
            raise CallerError(
                f"The folder holds a search of other {what}.",
                where=str(folder),
                next_step="Name another folder after --run.",
            )


def _try_key(settings: Mapping[str, Any], base: FinetuneConfig, key: str, choice: Range) -> None:
    """CallerError where the key is no setting, or one that all trials share, or its range holds what it cannot be."""
    fixed = FIXED | FIXED_OF.get(base.task.kind, {})
    if base.task.kind == "imitate" and not base.distil.teacher:
        fixed["base.name"] = "without distil.teacher it is the teacher, which trials are measured against"
    if reason := fixed.get(key) or fixed.get(key.partition(".")[0]):
        raise CallerError(f"{key} cannot be searched over: {reason}.", where=f"search.space.{key}")
    for value in choice.choices or (choice.low, choice.high):
        checked(settings, {key: value}, where=f"search.space.{key}")


def _shown(drawn: Mapping[str, Value]) -> str:
    parts = [
        f"{key.rpartition('.')[2]} {value:.2g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in drawn.items()
    ]
    return ", ".join(parts)
