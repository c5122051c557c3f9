"""Ranker examples: at several past moments, what the pipeline would have proposed, and what was bought."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.app.config import TrainConfig
from endcap.app.tasks import Question, as_newcomer, cases, questions
from endcap.core.determinism import rng
from endcap.evaluate.protocols import Case
from endcap.features.ids import Vocabulary
from endcap.features.sequences import Histories
from endcap.models.ranker import Examples
from endcap.recommend.pipeline import Pipeline

DAY_MS = 86_400_000


def moments(from_ms: int, to_ms: int, config: TrainConfig) -> list[tuple[int, int]]:
    """(moment, end of its window), evenly spread over [from_ms, to_ms)."""
    starts = [from_ms + (to_ms - from_ms) * part // config.moments for part in range(config.moments)]
    return [(start, min(to_ms, start + int(config.window_days * DAY_MS))) for start in starts]


def examples_at(
    pipeline: Pipeline,
    histories: Histories,
    bought: pl.DataFrame,
    window: tuple[int, int],
    config: TrainConfig,
    progress: Callable[[float], None],
) -> list[Examples]:
    """One batch of examples per task, from each user's first basket of the window."""
    draw = rng(config.seed, f"negatives:{window[0]}")
    tasks = cases(bought, *window, cart_min_items=config.cart_min_items, seed=config.seed)
    total = max(1, sum(len(asked) for asked in tasks.values()))
    parts, done = [], 0
    for task, asked in tasks.items():
        found = []
        for case, question in zip(asked, questions(task, asked, histories, pipeline.table.ids), strict=True):
            asked_as = [question]
            if task == "all" and len(question.context.items) and draw.random() < config.newcomers:
                asked_as.append(as_newcomer(question, int(draw.integers(1, 6))))
            examples = [_example(pipeline, case, one, histories.users, draw, config.negatives) for one in asked_as]
            found += [example for example in examples if example is not None]
            done += 1
            progress(done / total)
        if found:
            parts.append(join(found))
    return parts


def join(parts: Sequence[Examples]) -> Examples:
    return Examples(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.users for part in parts]),
    )


def _example(
    pipeline: Pipeline,
    case: Case,
    question: Question,
    users: Vocabulary,
    draw: np.random.Generator,
    negatives: int,
) -> Examples | None:
    """The candidates of one case; None where they hold no target. Keeps all targets and a sample of the rest."""
    candidates = pipeline.candidates(question.query, question.context)
    labels = np.isin(candidates.items, question.targets)
    if not labels.any():
        return None
    kept = _sample(labels, draw, negatives)
    features = pipeline.hydrator.features(candidates, question.context)[kept]
    user = users.position(case.user_id)
    return Examples(features, labels[kept].astype(np.int8), np.array([len(kept)], np.int64), np.array([user], np.int64))


def _sample(labels: NDArray[np.bool_], draw: np.random.Generator, negatives: int) -> NDArray[np.int64]:
    rest = np.flatnonzero(~labels)
    if len(rest) > negatives:
        rest = draw.choice(rest, negatives, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(labels), rest]))
