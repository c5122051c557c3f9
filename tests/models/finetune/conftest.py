"""A whole tuning in one call."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import part_examples
from endcap.models.finetune.tuner import Outcome, tune


@pytest.fixture(scope="session")
def tuned_on() -> Callable[[pl.DataFrame, FinetuneConfig], Outcome]:
    """Tunes on a table, measured as the application does."""
    from endcap.app.finetune_measure import measures_of

    def run(frame: pl.DataFrame, config: FinetuneConfig, **named: object) -> Outcome:
        examples = part_examples(frame, config)
        return tune(examples, config, measures_of(examples, config).measure, **named)  # type: ignore[arg-type]

    return run
