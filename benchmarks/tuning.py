"""One tuning for a benchmark, in a process of its own, so that its memory is its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import polars as pl

from endcap.app.benchmark import peak_rss_mb
from endcap.app.finetune_measure import measures_of
from endcap.core.types import Float32Array
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import part_examples

ENCODER = "encoder"  # in the folder of a saved bi-encoder
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Told:
    """test: metrics of the test part, measured once. curve: the deciding metric at each evaluation. best: which was
    kept, from 1. share: of the parameters that learn. predicted: for the test rows."""

    test: dict[str, float]
    curve: list[float]
    best: int
    seconds: float
    share: float
    memory_mb: int
    predicted: Float32Array


def tuned(frame: pl.DataFrame, settings: Settings, *, save: Path | None = None) -> Told:
    """frame: rows with their `part`. save: where the model goes, for another to begin from."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_tuned, frame, settings, save).result()


def figures(name: str, values: list[float]) -> dict[str, float]:
    """The mean of seeds, and their standard deviation as `<name>_sd`."""
    return {name: mean(values)} | ({f"{name}_sd": stdev(values)} if len(values) > 1 else {})


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _tuned(frame: pl.DataFrame, settings: Settings, save: Path | None) -> Told:
    from endcap.models.finetune.tuner import tune

    config = FinetuneConfig.model_validate(settings)
    examples = part_examples(frame, config)
    measures = measures_of(examples, config)
    outcome = tune(examples, config, measures.measure)
    predicted = outcome.task.predict(examples.test) if examples.test.height else np.zeros(0, np.float32)
    test = measures.measure(examples.test, predicted) if examples.test.height else {}
    if save is not None:
        outcome.tuned.save(save)
        if config.task.kind == "pairs":
            outcome.tuned.export_encoder(save / ENCODER)
    report = outcome.report
    curve = [metrics[config.metric] for metrics in outcome.metrics]
    share = outcome.learns / outcome.parameters
    return Told(test, curve, report.best_epoch, report.seconds, share, peak_rss_mb(), predicted)
