"""Every model beside every baseline, on what shoppers did next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from endcap.app.parallel import in_order
from endcap.app.sources import Fitted
from endcap.app.tasks import Question, question
from endcap.core.protocols import CandidateSource
from endcap.core.ranking import best_positions
from endcap.core.types import Evidence, Float32Array, Int32Array
from endcap.evaluate.metrics import Ranked, content_diversity, coverage, measure, novelty, rank_in_each
from endcap.evaluate.protocols import Case
from endcap.evaluate.report import Comparison
from endcap.features.sequences import Histories
from endcap.models.buy_again import PersonalFrequency
from endcap.recommend.candidates import weigh
from endcap.recommend.filters import every
from endcap.recommend.pipeline import Pipeline

Answer = tuple[Ranked, Int32Array]
OURS = "endcap"
K = 10


def compare(
    fitted: Fitted,
    pipeline: Pipeline,
    histories: Histories,
    tasks: Mapping[str, Sequence[Case]],
    *,
    seed: int,
    workers: int,
    progress: Callable[[str, float], None],
) -> Comparison:
    """Rank every item sold before the window, ties counted against the model, for every case of every task.

    The baselines are the release's own sources, each alone, and personal frequency.
    """
    comparison = Comparison(OURS, seed=seed)
    baselines = [*pipeline.sources, PersonalFrequency(fitted.stats.baskets)]
    for task, asked in tasks.items():
        if not asked:
            continue
        answers = _all_answers(fitted, pipeline, baselines, histories, task, asked, workers, partial(progress, task))
        for column, model in enumerate((OURS, *(source.name for source in baselines))):
            ranked, slates = zip(*(row[column] for row in answers), strict=True)
            comparison.add(task, model, measure(ranked), _beyond_accuracy(slates, fitted))
    return comparison


def ranked_by(
    fitted: Fitted, pipeline: Pipeline, histories: Histories, task: str, asked: Sequence[Case], *, workers: int
) -> list[Ranked]:
    """Where a release puts what was bought, case by case, without baselines beside it."""
    answers = _all_answers(fitted, pipeline, (), histories, task, asked, workers, lambda share: None)
    return [ours for ((ours, _),) in answers]


def users_per_second(
    pipeline: Pipeline, histories: Histories, task: str, asked: Sequence[Case], *, workers: int
) -> float:
    """How many cases are ranked in a second, from a history to a sorted list, by all workers together."""

    def rank(piece: range) -> list[int]:
        some = [question(task, asked[place], histories, pipeline.table.ids) for place in piece]
        return [len(found.items) for found in pipeline.rank([(one.query, one.context) for one in some])]

    started = time.monotonic()
    in_order(rank, len(asked), workers, lambda share: None)
    return len(asked) / (time.monotonic() - started)


def _all_answers(
    fitted: Fitted,
    pipeline: Pipeline,
    baselines: Sequence[CandidateSource],
    histories: Histories,
    task: str,
    asked: Sequence[Case],
    workers: int,
    progress: Callable[[float], None],
) -> list[list[Answer]]:
    """Every case, answered by ours and then by each baseline. Baselines, if any, begin with the pipeline's sources."""
    sold = np.flatnonzero(fitted.stats.baskets > 0).astype(np.int32)
    fallback_place = np.empty(len(fitted.table), np.float32)
    fallback_place[pipeline.fallback] = np.arange(len(fitted.table))

    def answer(piece: range) -> list[list[Answer]]:
        some = [question(task, asked[place], histories, fitted.table.ids) for place in piece]
        said = weigh(baselines, [one.context for one in some])
        ours = [evidence[: len(pipeline.sources)] for evidence in said] if baselines else None
        ranked = pipeline.rank([(one.query, one.context) for one in some], ours)
        return [
            _answers(one, pipeline, found.items, evidence, sold, fallback_place)
            for one, found, evidence in zip(some, ranked, said, strict=True)
        ]

    return in_order(answer, len(asked), workers, progress)


def _answers(
    asked: Question,
    pipeline: Pipeline,
    ours: Int32Array,
    baselines: Sequence[Evidence],
    sold: Int32Array,
    fallback_place: Float32Array,
) -> list[Answer]:
    """One case, answered by ours (its list, best first) and then each baseline, over the same eligible items."""
    eligible = sold[every(pipeline.filters, asked.query, asked.context, sold)]
    targets = asked.targets[np.isin(asked.targets, eligible)]
    unreachable = asked.unreachable + len(asked.targets) - len(targets)
    places = np.searchsorted(eligible, targets).astype(np.int32)
    ours = ours[np.isin(ours, eligible, kind="table")]
    # what was no candidate follows in the order of the fallback
    scores = -fallback_place[eligible]
    scores[np.searchsorted(eligible, ours)] = np.arange(len(ours), 0, -1, dtype=np.float32)
    found = np.stack([scores, *(said.at(eligible) for said in baselines)])
    ranked = rank_in_each(found, places, unreachable)
    return [(one, eligible[best_positions(row, K)]) for one, row in zip(ranked, found, strict=True)]


def _beyond_accuracy(slates: Sequence[Int32Array], fitted: Fitted) -> dict[str, float]:
    counts = np.expm1(fitted.stats.baskets).round().astype(np.int64)
    totals = {
        f"coverage@{K}": coverage(slates, len(fitted.table)),
        f"novelty@{K}": float(novelty(slates, counts).mean()),
    }
    vectors = _content(fitted)
    if vectors is not None:
        totals[f"diversity@{K}"] = float(content_diversity(slates, vectors).mean())
    return totals


def _content(fitted: Fitted) -> Float32Array | None:
    for source in fitted.sources:
        vectors = getattr(source, "vectors", None)
        if source.name == "content" and isinstance(vectors, np.ndarray):
            return vectors
    return None
