"""The search for good settings: trials that fail, are interrupted or go on later, and the run of the best."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from endcap.app import finetune_search
from endcap.app.finetune_search import Range, SearchConfig, search
from endcap.app.finetune_start import Source
from endcap.cli.searching import space_of
from endcap.core.errors import CallerError, ServiceError

SETTINGS = {
    "method": {"kind": "frozen"},
    "train": {"batch_size": 8, "epochs": 2, "threads": 1, "precision": "float32", "metric": "log_loss"},
    "base": {"layers": 1, "max_length": 8},
    "track": {"tensorboard": False},
}
RATES = SearchConfig(trials=2, sampler="random", space={"train.lr": Range(low=1e-3, high=1e-1, log=True)})


@pytest.fixture(scope="session")
def settings(tiny_bert: Path) -> dict[str, Any]:
    return SETTINGS | {"base": {"name": str(tiny_bert), "layers": 1, "max_length": 8}}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[float | BaseException]:
    """What the trials come to, in the place of their tuning: numbers, or what is raised."""
    given: list[float | BaseException] = []

    def trial(trial: Any, *, config: SearchConfig, **_: object) -> float:
        for key, choice in config.space.items():
            choice.draw(trial, key)
        figure = given.pop(0)
        if isinstance(figure, BaseException):
            raise figure
        return figure

    monkeypatch.setattr(finetune_search, "_trial", trial)
    return given


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return found


def more(trials: int, config: SearchConfig = RATES) -> SearchConfig:
    return config.model_copy(update={"trials": trials})


def test_ranges_are_read_as_written() -> None:
    space = space_of(["train.lr=1e-5..1e-3:log", "train.epochs=1..4", "method.kind=lora|full", "method.rank=4|8"])
    assert space == {
        "train.lr": Range(low=1e-5, high=1e-3, log=True),
        "train.epochs": Range(low=1, high=4),
        "method.kind": Range(choices=("lora", "full")),
        "method.rank": Range(choices=(4, 8)),
    }
    wrong = ["train.lr=5..1", "train.lr=1..2..3", "train.lr", "train.lr="]
    for text in (*wrong, "train.lr=1e-5..1e-3:lgo", "train.lr=1e-5..1e-3:", "train.dropout=0..1:log"):
        with pytest.raises(CallerError, match="no range"):
            space_of([text])


def test_a_key_that_is_no_setting_is_refused_before_anything_runs(colours: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=r"train\.speed"):
        search(colours, SETTINGS, SearchConfig(space=space_of(["train.speed=1..4"])), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train.seed=1..9", "which rows are in the test part"),
        ("split.by=random|stratified", "which rows are in the test part"),
        ("columns.text=title|name", "read once"),
        ("task.kind=classification|rating", "read once"),
        ("task.several=true|false", "read once"),
        ("train.metric=accuracy|log_loss", "compared by it"),
        ("ensemble=1..4", "one model"),
        ("track.wandb=true|false", "no curves"),
    ],
)
def test_what_all_trials_share_is_not_searched_over(
    colours: pl.DataFrame, tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(CallerError, match=f"cannot be searched over: .*{reason}"):
        search(colours, SETTINGS, SearchConfig(space=space_of([text])), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("masked", "task.mask_share=0.1..0.5", "which words are hidden"),
        ("masked", "base.name=one|other", "which words are hidden"),
        ("masked", "base.max_length=8..64", "which words are hidden"),
        ("imitate", "distil.teacher=one|other", "measured against"),
        ("imitate", "base.pooling=cls|mean", "measured against"),
        ("imitate", "base.max_length=8..64", "measured against"),
        ("imitate", "base.name=one|other", "without distil.teacher it is the teacher"),
    ],
)
def test_what_a_tasks_figure_rests_on_is_not_searched_over(
    colours: pl.DataFrame, tmp_path: Path, kind: str, text: str, reason: str
) -> None:
    settings = SETTINGS | {"task": {"kind": kind}, "train": {}, "method": {}}
    with pytest.raises(CallerError, match=f"cannot be searched over: .*{reason}"):
        search(colours.select("text"), settings, SearchConfig(space=space_of([text])), tmp_path / "run")


def test_students_of_one_teacher_are_searched_over(
    colours: pl.DataFrame,
    settings: dict[str, Any],
    tiny_bert: Path,
    tmp_path: Path,
    figures: list[float | BaseException],
) -> None:
    figures += [0.5]
    train = {"epochs": 1, "threads": 1, "precision": "float32"}
    given = settings | {
        "task": {"kind": "imitate"},
        "method": {},
        "train": train,
        "distil": {"teacher": str(tiny_bert)},
    }
    config = SearchConfig(trials=1, space={"base.name": Range(choices=(str(tiny_bert),))})
    assert search(colours.select("text"), given, config, tmp_path / "run").values == [0.5]


def test_the_search_finds_the_better_rate_and_goes_on_after_an_interruption(
    colours: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SearchConfig(trials=4, sampler="random", space=space_of(["train.lr=0.000001|0.05"]))
    calls, tune = 0, finetune_search.tune

    def interrupted(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return tune(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(finetune_search, "tune", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(colours, SETTINGS, config, tmp_path / "run")
    found = search(colours, SETTINGS, config, tmp_path / "run")
    assert calls == 5
    assert found.settings == {"train.lr": 0.05}
    assert sum(value is not None for value in found.values) >= 2
    assert found.best.metrics["test"]["log_loss"] < 0.6
    for name in ("search.svg", "search.json", "best/card.md"):
        assert (tmp_path / "run" / name).stat().st_size
    with pytest.raises(CallerError, match="other settings"):
        search(colours, SETTINGS, config.model_copy(update={"sampler": "tpe"}), tmp_path / "run")


def test_a_trial_that_was_cut_short_is_begun_again_with_its_settings(
    colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path, figures: list[float | BaseException]
) -> None:
    figures += [0.5, KeyboardInterrupt(), 0.4, 0.6]
    with pytest.raises(KeyboardInterrupt):
        search(colours, settings, more(3), tmp_path)
    found = search(colours, settings, more(3), tmp_path)
    assert (found.values, found.failed) == ([0.5, 0.4, 0.6], {})
    trials = told(tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1]["settings"] == trials[2]["settings"] != trials[3]["settings"]
    assert [trial["reason"] for trial in trials] == [""] * 4


class Killed(BaseException):
    """The process was ended from outside, and could write nothing down."""


def test_a_trial_that_ends_the_process_twice_is_given_up(
    colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path, figures: list[float | BaseException]
) -> None:
    """It is begun again once; the search then goes on without it, and says why."""
    figures += [0.5, Killed(), KeyboardInterrupt(), Killed(), 0.4, 0.6]
    for ended in (Killed, KeyboardInterrupt, Killed):
        with pytest.raises(ended):
            search(colours, settings, more(3), tmp_path)
    found = search(colours, settings, more(3), tmp_path)
    assert found.values == [0.5, None, 0.4]
    assert ["came to its end in it 2 times" in reason for reason in found.failed.values()] == [True]


def test_a_tunings_folder_is_no_searchs(colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run-id").write_text("another's")
    with pytest.raises(CallerError, match="holds a tuning"):
        search(colours, settings, more(1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run-id"]


class TestOn:
    """To more trials, in a folder whose search had ended."""

    def test_a_better_one_takes_the_place_of_the_best(
        self, colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path, figures: list[float | BaseException]
    ) -> None:
        figures += [0.5, 0.7, 0.1, 0.3]
        first = search(colours, settings, more(2), tmp_path)
        found = search(colours, settings, more(4), tmp_path)
        assert found.values == [0.5, 0.7, 0.1, 0.3]
        assert first.settings != found.settings == told(tmp_path)["settings"]
        assert found.best.folder == tmp_path / "best"
        assert f"lr = {found.settings['train.lr']}" in (tmp_path / "best" / "finetune.toml").read_text()
        assert told(tmp_path)["measured"] == json.loads((tmp_path / "best" / "metrics.json").read_text())
        assert (tmp_path / "best" / "card.md").read_text().startswith("# best\n")
        assert not (tmp_path / "next").exists()

    def test_the_best_is_not_tuned_again(
        self,
        colours: pl.DataFrame,
        settings: dict[str, Any],
        tmp_path: Path,
        figures: list[float | BaseException],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        figures += [0.5, 0.7, 0.9]
        first = search(colours, settings, more(2), tmp_path)
        monkeypatch.setattr(finetune_search, "finetune", None)
        for trials in (2, 3):
            found = search(colours, settings, more(trials), tmp_path)
            assert found.best.metrics == first.best.metrics == told(tmp_path)["measured"]
            assert found.best.facts["rows"] == first.best.facts["rows"]
            assert len(told(tmp_path)["trials"]) == trials

    def test_an_interrupted_last_run_is_gone_on_with_or_given_up(
        self,
        colours: pl.DataFrame,
        settings: dict[str, Any],
        tmp_path: Path,
        figures: list[float | BaseException],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Given up where further trials were better."""
        figures += [0.5, 0.3, 0.1]
        search(colours, settings, more(1), tmp_path)
        whole = finetune_search.finetune

        def interrupted(*args: Any, **named: Any) -> None:
            """At its second evaluation, when there is something to go on with."""
            seen: list[dict[str, float]] = []

            def stop(metrics: dict[str, float]) -> None:
                seen.append(metrics)
                if len(seen) == 2:
                    raise KeyboardInterrupt

            whole(*args, **named, at_evaluation=stop)

        monkeypatch.setattr(finetune_search, "finetune", interrupted)
        for trials in (2, 3):
            with pytest.raises(KeyboardInterrupt):
                search(colours, settings, more(trials), tmp_path)
            assert (told(tmp_path)["best"], told(tmp_path)["measured"]) == ([0.3, 0.1][trials - 2], None)
            assert (tmp_path / "best" / "run.json").exists()
        monkeypatch.setattr(finetune_search, "finetune", whole)
        found = search(colours, settings, more(3), tmp_path)
        assert [outcome.report.resumed_after for outcome in found.best.outcomes] == [1]
        assert f"lr = {found.settings['train.lr']}" in (tmp_path / "best" / "finetune.toml").read_text()
        assert told(tmp_path)["measured"] == found.best.metrics

    def test_other_data_are_refused(
        self, colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path, figures: list[float | BaseException]
    ) -> None:
        figures += [0.5]
        search(colours, settings, more(1), tmp_path)
        with pytest.raises(CallerError, match="holds a search of other data"):
            search(colours.head(80), settings, more(2), tmp_path)

    def test_a_source_is_read_once(
        self, colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path, figures: list[float | BaseException]
    ) -> None:
        """A log that grew meanwhile makes no other search of it."""
        figures += [0.5, 0.1]
        tables = [colours, colours.head(80)]
        growing = Source("a shop", lambda: tables.pop(0))
        search(growing, settings, more(1), tmp_path)
        found = search(growing, settings, more(2), tmp_path)
        assert found.values == [0.5, 0.1]
        assert len(tables) == 1


class TestFailing:
    def test_a_trial_fails_alone(
        self, colours: pl.DataFrame, settings: dict[str, Any], tuning: Callable[..., Any], tmp_path: Path
    ) -> None:
        """Nothing is left to learn where pairs are tuned frozen."""
        pairs = colours.select(anchor="text", candidate="text")
        given = settings | {"task": {"kind": "pairs"}, "train": tuning(train={"epochs": 1}).train.model_dump()}
        config = SearchConfig(trials=4, sampler="random", space=space_of(["method.kind=frozen|lora"]))
        found = search(pairs, given, config, tmp_path)
        assert found.settings == {"method.kind": "lora"}
        assert len(found.values) == 4
        assert len(found.failed) == found.values.count(None) > 0
        for trial in told(tmp_path)["trials"]:
            assert ("Nothing is left to learn" in trial["reason"]) == (trial["settings"]["method.kind"] == "frozen")

    def test_all_failing_is_told_with_the_first_reason(
        self, colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        rates = settings | {"method": {"kind": "full"}}
        config = SearchConfig(trials=2, space=space_of(["train.lr=1e30|1e35"]))
        for _ in range(2):
            with pytest.raises(CallerError, match=r"No trial came to its end.*no longer a number"):
                search(colours, rates, config, tmp_path)
            assert [trial["state"] for trial in told(tmp_path)["trials"]] == ["FAIL"] * 2
        assert told(tmp_path)["best"] is None

    def test_it_counts_and_an_interruption_does_not(
        self, colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path, figures: list[float | BaseException]
    ) -> None:
        figures += [ServiceError("Out of luck."), KeyboardInterrupt(), 0.4]
        with pytest.raises(KeyboardInterrupt):
            search(colours, settings, more(2), tmp_path)
        found = search(colours, settings, more(2), tmp_path)
        assert found.values == [None, 0.4]
        assert found.failed == {1: "Out of luck."}

    def test_an_error_that_is_not_ours_stops_the_search_once(
        self, colours: pl.DataFrame, settings: dict[str, Any], tmp_path: Path, figures: list[float | BaseException]
    ) -> None:
        figures += [ZeroDivisionError("by zero"), 0.4]
        with pytest.raises(ZeroDivisionError):
            search(colours, settings, more(2), tmp_path)
        assert search(colours, settings, more(2), tmp_path).failed == {1: "by zero"}
