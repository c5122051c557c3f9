"""Every model beside every baseline, on what shoppers did next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from endcap.app.sources import Fitted
from endcap.app.tasks import Question, questions
from endcap.core.protocols import CandidateSource
from endcap.core.ranking import best_positions
from endcap.core.types import Float32Array, Int32Array
from endcap.evaluate.metrics import Ranked, content_diversity, coverage, measure, novelty, rank_slate, rank_targets
from endcap.evaluate.protocols import Case
from endcap.evaluate.report import Comparison
from endcap.features.sequences import Histories
from endcap.models.buy_again import PersonalFrequency
from endcap.recommend.filters import every
from endcap.recommend.pipeline import Pipeline

OURS = "endcap"
K = 10


def compare(
    fitted: Fitted,
    pipeline: Pipeline,
    histories: Histories,
    tasks: Mapping[str, Sequence[Case]],
    *,
    seed: int,
    progress: Callable[[str, float], None],
) -> Comparison:
    """Rank every item sold before the window, ties counted against the model, for every case of every task.

    The baselines are the release's own sources, each alone, and personal frequency.
    """
    comparison = Comparison(OURS, seed=seed)
    baselines = [*fitted.sources, PersonalFrequency()]
    sold = np.flatnonzero(fitted.stats.baskets > 0).astype(np.int32)
    for task, asked in tasks.items():
        measured = _Measured([OURS, *(source.name for source in baselines)])
        for place, question in enumerate(questions(task, asked, histories, fitted.table.ids)):
            _answer(question, fitted, pipeline, baselines, sold, measured)
            progress(task, (place + 1) / len(asked))
        measured.add_to(comparison, task, fitted)
    return comparison


class _Measured:
    """Ranks and slates of each model over the cases of one task."""

    def __init__(self, models: list[str]) -> None:
        self.ranked: dict[str, list[Ranked]] = {model: [] for model in models}
        self.slates: dict[str, list[Int32Array]] = {model: [] for model in models}

    def put(self, model: str, ranked: Ranked, slate: Int32Array) -> None:
        self.ranked[model].append(ranked)
        self.slates[model].append(slate)

    def add_to(self, comparison: Comparison, task: str, fitted: Fitted) -> None:
        counts = np.expm1(fitted.stats.baskets).round().astype(np.int64)
        vectors = _content(fitted)
        for model, ranked in self.ranked.items():
            if not ranked:
                continue
            values = measure(ranked)
            slates = self.slates[model]
            totals = {f"coverage@{K}": coverage(slates, len(fitted.table))}
            totals[f"novelty@{K}"] = float(novelty(slates, counts).mean())
            if vectors is not None:
                totals[f"diversity@{K}"] = float(content_diversity(slates, vectors).mean())
            comparison.add(task, model, values, totals)


def _answer(
    question: Question,
    fitted: Fitted,
    pipeline: Pipeline,
    baselines: Sequence[CandidateSource],
    sold: Int32Array,
    measured: _Measured,
) -> None:
    """One case, answered by all models over the same eligible items."""
    allowed = every(pipeline.filters, question.query, question.context, sold)
    eligible = sold[allowed]
    targets = question.targets[np.isin(question.targets, eligible)]
    unreachable = question.unreachable + len(question.targets) - len(targets)
    ours = pipeline.rank(question.query, question.context).items
    ours = ours[np.isin(ours, eligible)]
    fallback = pipeline.fallback[_member(pipeline.fallback, eligible, len(fitted.table))]
    measured.put(OURS, rank_slate(ours, targets, len(eligible), fallback, unreachable), ours[:K])
    places = np.searchsorted(eligible, targets).astype(np.int32)
    for source in baselines:
        scores = source.weigh(question.context).at(eligible)
        measured.put(
            source.name, rank_targets(scores, places, unreachable=unreachable), eligible[best_positions(scores, K)]
        )


def _member(items: Int32Array, among: Int32Array, n_items: int) -> NDArray[np.bool_]:
    mask = np.zeros(n_items, np.bool_)
    mask[among] = True
    return mask[items]


def _content(fitted: Fitted) -> Float32Array | None:
    for source in fitted.sources:
        vectors = getattr(source, "vectors", None)
        if source.name == "content" and isinstance(vectors, np.ndarray):
            return vectors
    return None
