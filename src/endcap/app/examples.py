"""Ranker examples: at several past moments, what the pipeline would have proposed, and what was bought."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from endcap.app.config import TrainConfig
from endcap.app.parallel import in_order
from endcap.app.tasks import Question, as_newcomer, question
from endcap.core.determinism import rng
from endcap.evaluate.protocols import Case, Cases
from endcap.features.sequences import Histories
from endcap.models.ranker import Examples
from endcap.recommend.pipeline import Pipeline


def examples_at(
    pipeline: Pipeline,
    histories: Histories,
    tasks: Mapping[str, Cases],
    config: TrainConfig,
    progress: Callable[[float], None],
) -> list[Examples]:
    """Of all cases of all tasks, end to end; nothing where no case has its target among the candidates."""
    asked = [(task, case) for task, found in tasks.items() for case in found]
    made = in_order(
        lambda place: _examples(pipeline, histories, *asked[place], config), len(asked), config.threads, progress
    )
    parts = [example for several in made for example in several]
    return [join(parts)] if parts else []


def join(parts: Sequence[Examples]) -> Examples:
    return Examples(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.users for part in parts]),
    )


def _examples(pipeline: Pipeline, histories: Histories, task: str, case: Case, config: TrainConfig) -> list[Examples]:
    """Of one case: as it was, and for some also as if asked by an anonymous visitor."""
    draw = rng(config.seed, f"example:{task}:{case.user_id}:{case.now_ms}")
    asked = question(task, case, histories, pipeline.table.ids)
    asked_as = [asked]
    if task == "all" and len(asked.context.items) and draw.random() < config.newcomers:
        asked_as.append(as_newcomer(asked, int(draw.integers(1, 6))))
    user = histories.users.position(case.user_id)
    made = (_example(pipeline, one, user, draw, config.negatives) for one in asked_as)
    return [example for example in made if example is not None]


def _example(
    pipeline: Pipeline, asked: Question, user: int, draw: np.random.Generator, negatives: int
) -> Examples | None:
    """The candidates of one question; None where they hold no target. Keeps all targets and a sample of the rest."""
    candidates = pipeline.candidates(asked.query, asked.context)
    labels = np.isin(candidates.items, asked.targets)
    if not labels.any():
        return None
    kept = _sample(labels, draw, negatives)
    features = pipeline.hydrator.features(candidates, asked.context)[kept]
    return Examples(features, labels[kept].astype(np.int8), np.array([len(kept)], np.int64), np.array([user], np.int64))


def _sample(labels: NDArray[np.bool_], draw: np.random.Generator, negatives: int) -> NDArray[np.int64]:
    rest = np.flatnonzero(~labels)
    if len(rest) > negatives:
        rest = draw.choice(rest, negatives, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(labels), rest]))
