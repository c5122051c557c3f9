"""Tables in which something is planted, of every task's kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import part_examples
from endcap.models.finetune.tuner import Outcome, tune

WARM, COLD = ("red", "orange", "amber", "scarlet"), ("blue", "teal", "navy", "cyan")
THINGS = ("shoes", "boots", "shirt", "coat", "milk", "bread", "lamp", "chair", "table", "drill", "rope", "tent")


@pytest.fixture(scope="session")
def liked() -> pl.DataFrame:
    """anchor, candidate, label, group: who looked at warm colours wants warm ones. 48 lists of four, one wanted."""
    draw = np.random.default_rng(0)
    rows = []
    for group in range(48):
        ours, theirs = (WARM, COLD) if group % 2 else (COLD, WARM)
        anchor = [f"{draw.choice(ours)} {draw.choice(THINGS)}" for _ in range(1 + group % 3)]
        for place in range(4):
            colour = draw.choice(ours if place == group % 4 else theirs)
            rows.append((anchor, f"{colour} {draw.choice(THINGS)}", float(place == group % 4), f"list {group}"))
    return pl.DataFrame(rows, schema=["anchor", "candidate", "label", "group"], orient="row")


@pytest.fixture(scope="session")
def tuned_on() -> Callable[[pl.DataFrame, FinetuneConfig], Outcome]:
    """Tunes on a table, measured as the application does."""
    from endcap.app.finetune_measure import measures_of

    def run(frame: pl.DataFrame, config: FinetuneConfig, **named: object) -> Outcome:
        examples = part_examples(frame, config)
        return tune(examples, config, measures_of(examples, config).measure, **named)  # type: ignore[arg-type]

    return run
