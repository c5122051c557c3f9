from pathlib import Path

import polars as pl
import pytest

from endcap.app import finetune_search
from endcap.app.finetune_search import Range, SearchConfig, search, space_of
from endcap.core.errors import CallerError

COLOURS = {"warm": ["red", "orange", "amber"], "cold": ["blue", "teal", "navy"]}


@pytest.fixture(scope="module")
def colours() -> pl.DataFrame:
    rows = [(f"{word} {thing}", label) for label, words in COLOURS.items() for word in words for thing in "abcdefgh"]
    return pl.DataFrame(rows, schema=["text", "label"], orient="row")


SETTINGS = {
    "method": {"kind": "frozen"},
    "train": {"batch_size": 8, "epochs": 2, "threads": 1, "precision": "float32", "metric": "log_loss"},
    "base": {"layers": 1, "max_length": 8},
    "track": {"tensorboard": False},
}


def test_ranges_are_read_as_written() -> None:
    space = space_of(["train.lr=1e-5..1e-3:log", "train.epochs=1..4", "method.kind=lora|full", "method.rank=4|8"])
    assert space == {
        "train.lr": Range(low=1e-5, high=1e-3, log=True),
        "train.epochs": Range(low=1, high=4),
        "method.kind": Range(choices=("lora", "full")),
        "method.rank": Range(choices=(4, 8)),
    }
    for wrong in ("train.lr=5..1", "train.lr=1..2..3", "train.lr", "train.lr="):
        with pytest.raises(CallerError, match="no range"):
            space_of([wrong])


def test_a_key_that_is_no_setting_is_refused_before_anything_runs(colours: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=r"train\.speed"):
        search(colours, SETTINGS, SearchConfig(space=space_of(["train.speed=1..4"])), tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
