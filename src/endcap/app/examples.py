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
from endcap.models.blend import fit_weights
from endcap.models.crossfit import Examples
from endcap.recommend.candidates import Shortlist, joined, shares
from endcap.recommend.pipeline import Pipeline

PROBED, LEAST_PROBED = 2000, 20


def examples_at(
    pipeline: Pipeline,
    histories: Histories,
    tasks: Mapping[str, Cases],
    config: TrainConfig,
    progress: Callable[[float], None],
) -> list[Examples]:
    """Of all cases of all tasks, or of `config.examples` drawn from them, end to end; nothing where no case has its
    target among the candidates."""
    asked = [(task, case) for task, found in tasks.items() for case in found]
    if len(asked) > config.examples:
        drawn = rng(config.seed, "cases to learn from").choice(len(asked), config.examples, replace=False)
        asked = [asked[place] for place in np.sort(drawn)]

    def made(piece: range) -> list[Examples]:
        return _examples(pipeline, histories, [asked[place] for place in piece], config)

    parts = in_order(made, len(asked), config.threads, progress)
    return [join(parts)] if parts else []


def shortlist_for(
    pipeline: Pipeline, histories: Histories, tasks: Mapping[str, Cases], config: TrainConfig
) -> Shortlist | None:
    """The blend that best tells targets from other candidates in some of the cases; None where those are too few."""
    asked = [(task, case) for task, found in tasks.items() for case in found]
    draw = rng(config.seed, "cases for the shortlist")
    some = [asked[place] for place in np.sort(draw.permutation(len(asked))[:PROBED])]

    def made(piece: range) -> list[Examples]:
        questions = [question(some[place][0], some[place][1], histories, pipeline.table.ids) for place in piece]
        parts = []
        for one, found in zip(
            questions, pipeline.candidates([(one.query, one.context) for one in questions]), strict=True
        ):
            labels = np.isin(found.items, one.targets)
            if labels.any():
                sizes, users = found.sizes, np.array([one.context.row], np.int64)
                parts.append(Examples(shares(found), labels.astype(np.int8), sizes, users))
        return parts

    parts = in_order(made, len(some), config.threads, lambda share: None)
    if len(parts) < LEAST_PROBED:
        return None
    weights = fit_weights(join(parts)).tolist()
    return Shortlist(config.shortlist, dict(zip([source.name for source in pipeline.sources], weights, strict=True)))


def join(parts: Sequence[Examples]) -> Examples:
    return Examples(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.users for part in parts]),
    )


def _examples(
    pipeline: Pipeline, histories: Histories, cases: Sequence[tuple[str, Case]], config: TrainConfig
) -> list[Examples]:
    """Of the cases whose candidates hold a target: all targets and a sample of the rest. As one, or none."""
    asked, users, draws = [], [], []
    for task, case in cases:
        draw = draw_of(task, case, config)
        for one in asked_as(question(task, case, histories, pipeline.table.ids), task, draw, config):
            asked.append(one)
            users.append(histories.users.position(case.user_id))
            draws.append(draw)
    proposed = pipeline.candidates([(one.query, one.context) for one in asked])
    labels = [np.isin(found.items, one.targets) for found, one in zip(proposed, asked, strict=True)]
    kept = [place for place, targets in enumerate(labels) if targets.any()]
    if not kept:
        return []
    rows = {place: _sample(labels[place], draws[place], config.negatives) for place in kept}
    candidates = joined([proposed[place].take(rows[place]) for place in kept])
    features = pipeline.hydrator.features(candidates, [asked[place].context for place in kept])
    targets = np.concatenate([labels[place][rows[place]] for place in kept]).astype(np.int8)
    return [Examples(features, targets, candidates.sizes, np.array([users[place] for place in kept], np.int64))]


def draw_of(task: str, case: Case, config: TrainConfig) -> np.random.Generator:
    """For all that is left to chance in an example of a case."""
    return rng(config.seed, f"example:{task}:{case.user_id}:{case.now_ms}")


def asked_as(asked: Question, task: str, draw: np.random.Generator, config: TrainConfig) -> list[Question]:
    """The question as it was, and for some also as if asked by an anonymous visitor."""
    if task == "all" and len(asked.context.items) and draw.random() < config.newcomers:
        return [asked, as_newcomer(asked, int(draw.integers(1, 6)))]
    return [asked]


def _sample(labels: NDArray[np.bool_], draw: np.random.Generator, negatives: int) -> NDArray[np.int64]:
    rest = np.flatnonzero(~labels)
    if len(rest) > negatives:
        rest = draw.choice(rest, negatives, replace=False)
    return np.sort(np.concatenate([np.flatnonzero(labels), rest]))
