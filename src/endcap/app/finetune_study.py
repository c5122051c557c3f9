"""The study of a search: its trials in SQLite, drawn by Optuna, begun again where one was cut short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from endcap.core.errors import EndcapError, MissingExtraError
from endcap.models.finetune.config import LOWER_IS_BETTER, FinetuneConfig

if TYPE_CHECKING:
    import optuna

STUDY, REASON = "finetune", "reason"
STOPPED, ENDED, ENDS = "stopped", "ended", 2  # by the user; how often the process ended in it, and may


def open_study(folder: Path, base: FinetuneConfig, *, sampler: str, warmup: int) -> optuna.Study:
    """A new one, or that which the folder holds. sampler, warmup: as in `SearchConfig`."""
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", "finetune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{(folder / 'study.db').resolve()}",
        study_name=STUDY,
        direction="minimize" if base.metric in LOWER_IS_BETTER else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=warmup),
        load_if_exists=True,
    )
    # what is drawn next depends on the seed and on the trials that are there, so a resumed search goes on as one
    seed = base.train.seed + len(study.trials)
    study.sampler = (
        optuna.samplers.TPESampler(seed=seed) if sampler == "tpe" else optuna.samplers.RandomSampler(seed=seed)
    )
    return study


def run_trial(study: optuna.Study, tune: Callable[[optuna.Trial], float]) -> None:
    """A trial to its end. An error of ours is its settings' and ends it alone; any other stops the search. A trial that
    is interrupted has no end, and will be begun again."""
    import optuna

    trial = study.ask()
    try:
        study.tell(trial, tune(trial))
    except KeyboardInterrupt:
        trial.set_user_attr(STOPPED, True)
        raise
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except Exception as error:
        trial.set_user_attr(REASON, str(error) or type(error).__name__)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if not isinstance(error, EndcapError):
            raise


def requeue(study: optuna.Study) -> None:
    """Trials that were cut short are begun again, with the same settings; those that end the process each time are not:
    they count as failed."""
    import optuna

    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            times = trial.user_attrs.get(ENDED, 0) + (not trial.user_attrs.get(STOPPED, False))
            if times >= ENDS:
                why = f"The process came to its end in it {times} times; perhaps memory does not suffice."
                optuna.Trial(study, trial._trial_id).set_user_attr(REASON, why)
            else:
                study.enqueue_trial(trial.params, user_attrs={ENDED: times})
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that ended by themselves, or early; not those that an interruption cut short."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED") or reason_of(trial)]


def reason_of(trial: optuna.trial.FrozenTrial) -> str:
    return str(trial.user_attrs.get(REASON, ""))


def value_of(trial: optuna.trial.FrozenTrial) -> float | None:
    return trial.value if trial.state.name == "COMPLETE" else None


def importances_of(study: optuna.Study) -> dict[str, float]:
    """By how much of the trials' differences each setting explains (fANOVA, Hutter et al. 2014)."""
    import optuna

    values = {trial.value for trial in study.trials if trial.state.name == "COMPLETE"}
    if len(values) < 2:
        return {}
    return dict(optuna.importance.get_param_importances(study))
