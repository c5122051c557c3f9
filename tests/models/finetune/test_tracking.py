"""Curves of runs that were interrupted: every step once, whatever was written of it before."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.tracking import CURVES, tracking

LINES = FinetuneConfig.model_validate({"track": {"tensorboard": False}})


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / CURVES).read_text().splitlines()]


def test_steps_that_are_taken_again_are_written_once(tmp_path: Path) -> None:
    """A figure that is no number stays, and half a line, of a process that was killed, goes."""
    with tracking(tmp_path, LINES, "run") as log:
        for step in (10, 20, 30):
            log(step, {"train/loss": float("nan") if step == 10 else 1.0})
    with (tmp_path / CURVES).open("ab") as file:
        file.write(b'{"step": 1')
    with tracking(tmp_path, LINES, "run") as log:
        for step in (20, 30, 40):
            log(step, {"train/loss": 0.5})
    assert steps(tmp_path) == [10, 20, 30, 40]
    before = (tmp_path / CURVES).read_bytes()
    with tracking(tmp_path, LINES, "run"):
        pass
    assert (tmp_path / CURVES).read_bytes() == before


def test_nothing_is_written_before_there_is_something(tmp_path: Path) -> None:
    with tracking(tmp_path, FinetuneConfig(), "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_weights_and_biases_knows_a_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name and its folder: the same tuning in another folder is another run."""
    begun: list[dict[str, Any]] = []

    def init(**named: Any) -> SimpleNamespace:
        begun.append(named)
        return SimpleNamespace(log=lambda figures, step: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    config = FinetuneConfig.model_validate({"track": {"tensorboard": False, "wandb": True}})
    for folder, run_id in (("one", "run"), ("one", "run"), ("two", "run"), ("one", "another")):
        (tmp_path / folder).mkdir(exist_ok=True)
        with tracking(tmp_path / folder, config, run_id) as log:
            log(1, {"train/loss": 1.0})
    assert {named["resume"] for named in begun} == {"allow"}
    names = [named["id"] for named in begun]
    assert names[0] == names[1]
    assert len(set(names)) == 3
