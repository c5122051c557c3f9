"""The search for good settings of a tuning: trials by Optuna, poor ones ended early, kept in SQLite to be resumed.

study.db        every trial               search.json       trials, best settings, importances
search.svg      what was found, and which settings mattered
best/           the run of the best settings, the only one that is measured on the test part
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import polars as pl
from pydantic import Field, model_validator

from endcap.app.finetune import Run, Tell, finetune
from endcap.app.finetune_measure import measures_of
from endcap.app.finetune_report import pyplot, save_figure
from endcap.app.finetune_settings import checked
from endcap.core.artifacts import replace_atomically
from endcap.core.errors import CallerError, MissingExtraError
from endcap.core.section import Section
from endcap.core.types import Float32Array
from endcap.data import database
from endcap.models.finetune.config import LOWER_IS_BETTER, FinetuneConfig
from endcap.models.finetune.examples import Examples, part_examples, read_examples
from endcap.models.finetune.tuner import tune

if TYPE_CHECKING:
    import optuna

STUDY = "finetune"
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


def space_of(texts: Sequence[str]) -> dict[str, Range]:
    """From "key=low..high", "key=low..high:log" and "key=one|other". CallerError for anything else."""
    space = {}
    for text in texts:
        key, _, said = text.partition("=")
        numbers, _, scale = said.partition(":")
        try:
            if not said:
                raise ValueError("nothing is said of it")
            values = [_read(part) for part in (numbers.split("..") if ".." in numbers else said.split("|"))]
            if ".." in numbers:
                low, high = values
                space[key.strip()] = Range.model_validate({"low": low, "high": high, "log": scale == "log"})
            else:
                space[key.strip()] = Range(choices=tuple(values))
        except ValueError as error:
            raise CallerError(
                f"{text!r} is no range of a setting.",
                where="--space",
                next_step="Write key=low..high, key=low..high:log or key=one|other.",
            ) from error
    return space


@dataclass(frozen=True, slots=True)
class Found:
    """best: the run of the best settings. values: of the trials, None where one was ended early or failed.
    importances: of each setting, adding up to 1; empty with too few trials."""

    best: Run
    settings: dict[str, Value]
    values: list[float | None]
    importances: dict[str, float]


def search(
    data: Path | pl.DataFrame,
    settings: Mapping[str, Any],
    config: SearchConfig,
    folder: Path,
    *,
    tell: Tell = lambda *_: None,
) -> Found:
    """Try settings by validation, then tune once more with the best, and measure that on the test part.

    settings: nested, as in `finetune.toml`, from which each trial departs by what it draws. An interrupted search goes
    on from its finished trials. CallerError where a key of the space is no setting.
    """
    base = checked(settings, {}, where="settings")
    for key in config.space:
        _try_key(settings, key, config.space[key])
    database.make_folder(folder)
    tell("read the examples", 0.0)
    examples = read_examples(data, base) if isinstance(data, Path) else part_examples(data, base)
    study = _study(folder, base, config)
    _requeue(study)
    while (done := _finished(study)) < config.trials:
        stage = f"trial {done + 1} of {config.trials}"
        study.optimize(lambda trial, stage=stage: _trial(trial, settings, config, examples, stage, tell), n_trials=1)
    best = checked(settings, study.best_params, where="settings")
    importances = _importances(study)
    draw_search(folder / "search.svg", study, importances, base.metric)
    run = finetune(data, best, folder / "best", tell=tell)
    found = Found(run, dict(study.best_params), [_value(trial) for trial in study.trials], importances)
    told = {
        "metric": base.metric,
        "settings": found.settings,
        "best": study.best_value,
        "importances": importances,
        "trials": [{"settings": t.params, "value": _value(t), "state": t.state.name} for t in study.trials],
    }
    replace_atomically(folder / "search.json", msgspec.json.format(msgspec.json.encode(told), indent=2))
    return found


def _trial(
    trial: optuna.Trial,
    settings: Mapping[str, Any],
    config: SearchConfig,
    examples: Examples,
    stage: str,
    tell: Tell,
) -> float:
    """The best validation figure with the settings that the trial draws. Nothing is written and no test is read."""
    import optuna

    drawn = {key: choice.draw(trial, key) for key, choice in config.space.items()}
    ours = checked(settings, drawn, where="settings")
    measures, step = measures_of(examples, ours), 0

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
    values = [metrics[ours.metric] for metrics in outcome.metrics]
    if not values:
        raise CallerError("There is no validation part to choose settings by.", where="split.shares")
    return min(values) if ours.metric in LOWER_IS_BETTER else max(values)


def draw_search(path: Path, study: optuna.Study, importances: Mapping[str, float], metric: str) -> None:
    """Each trial and the best so far; beside it, how much each setting mattered."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    told = [(trial.number + 1, value) for trial in study.trials if (value := _value(trial)) is not None]
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


def _study(folder: Path, base: FinetuneConfig, config: SearchConfig) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", "finetune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{(folder / 'study.db').resolve()}"
    lower = base.metric in LOWER_IS_BETTER
    begun = folder / "search-id"
    said = f"{base.model_dump_json()} {config.model_copy(update={'trials': 1}).model_dump_json()}"
    if begun.exists() and begun.read_text("utf-8") != said:
        raise CallerError(
            "The folder holds a search of other settings.",
            where=str(folder),
            next_step="Name another folder after --run.",
        )
    replace_atomically(begun, said.encode())
    study = optuna.create_study(
        storage=storage,
        study_name=STUDY,
        direction="minimize" if lower else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=config.warmup)
        if config.prune
        else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    # what is drawn next depends on the seed and on the trials that are there, so a resumed search goes on as one
    seed = base.train.seed + len(study.trials)
    study.sampler = (
        optuna.samplers.TPESampler(seed=seed) if config.sampler == "tpe" else optuna.samplers.RandomSampler(seed=seed)
    )
    return study


def _requeue(study: optuna.Study) -> None:
    """Trials that an interruption cut short are begun again, with the same settings."""
    import optuna

    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)


def _finished(study: optuna.Study) -> int:
    """Trials that ended by themselves, or early."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def _value(trial: optuna.trial.FrozenTrial) -> float | None:
    return trial.value if trial.state.name == "COMPLETE" else None


def _importances(study: optuna.Study) -> dict[str, float]:
    """By how much of the trials' differences each setting explains (fANOVA, Hutter et al. 2014)."""
    import optuna

    values = {trial.value for trial in study.trials if trial.state.name == "COMPLETE"}
    if len(values) < 2:
        return {}
    return dict(optuna.importance.get_param_importances(study))


def _try_key(settings: Mapping[str, Any], key: str, choice: Range) -> None:
    """CallerError where the key is no setting, or its range holds what the setting cannot be."""
    for value in choice.choices or (choice.low, choice.high):
        checked(settings, {key: value}, where=f"search.space.{key}")


def _read(text: str) -> Value:
    """A number, true or false where it is one, else a word."""
    try:
        value: Value = msgspec.json.decode(text.strip(), type=Value)
    except msgspec.DecodeError:
        return text.strip()
    return value


def _shown(drawn: Mapping[str, Value]) -> str:
    parts = [
        f"{key.rpartition('.')[2]} {value:.2g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in drawn.items()
    ]
    return ", ".join(parts)
