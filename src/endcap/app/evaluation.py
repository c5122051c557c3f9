"""Every model beside every baseline, on what shoppers did next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from endcap.app.parallel import in_order
from endcap.app.sources import Fitted
from endcap.app.tasks import Question, question
from endcap.core.errors import ServiceError
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
from endcap.recommend.pipeline import Ranked as Sorted

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
    selling = _selling(fitted, pipeline.fallback)

    def answer(piece: range) -> list[list[Answer]]:
        some = [question(task, asked[place], histories, fitted.table.ids) for place in piece]
        said = weigh(baselines, [one.context for one in some])
        ours = [evidence[: len(pipeline.sources)] for evidence in said] if baselines else None
        ranked = pipeline.rank([(one.query, one.context) for one in some], ours)
        return [
            _answers(one, pipeline, found, evidence, sold, selling)
            for one, found, evidence in zip(some, ranked, said, strict=True)
        ]

    return in_order(answer, len(asked), workers, progress)


def _answers(
    asked: Question,
    pipeline: Pipeline,
    ours: Sorted,
    baselines: Sequence[Evidence],
    sold: Int32Array,
    selling: Float32Array,
) -> list[Answer]:
    """One case, answered by ours and then each baseline, over the same eligible items. ServiceError where ours had to
    fall back: what answered then is not what is measured."""
    if ours.degraded:
        raise _broken(ours.degraded)
    eligible = sold[every(pipeline.filters, asked.query, asked.context, sold)]
    targets = asked.targets[np.isin(asked.targets, eligible)]
    unreachable = asked.unreachable + len(asked.targets) - len(targets)
    places = np.searchsorted(eligible, targets).astype(np.int32)
    kept = np.isin(ours.items, eligible, kind="table")
    # what was no candidate follows in the order of the fallback, with the ties that each of the two has
    scores = selling[eligible]
    scores[np.searchsorted(eligible, ours.items[kept])] = 1 + _ascending(ours.scores[::-1])[::-1][kept]
    found = np.stack([scores, *(said.at(eligible) for said in baselines)])
    ranked = rank_in_each(found, places, unreachable)
    return [(one, eligible[best_positions(row, K)]) for one, row in zip(ranked, found, strict=True)]


def _broken(stages: Mapping[str, Exception]) -> ServiceError:
    failed = "; ".join(f"{stage} failed: {type(error).__name__}: {error}" for stage, error in stages.items())
    return ServiceError(
        f"{failed}.",
        where="measuring",
        next_step="The traceback is on the standard error. Mend the cause, then train again.",
    )


def _selling(fitted: Fitted, best_first: Int32Array) -> Float32Array:
    """float32 [items], at most 0: higher sells better, equal where only the catalogue's order decides."""
    worst_first = best_first[::-1]
    found = np.empty(len(worst_first), np.float32)
    found[worst_first] = _ascending(fitted.stats.lately[worst_first], fitted.stats.baskets[worst_first])
    found -= found.max(initial=0)
    return found


def _ascending(*keys: Float32Array) -> Float32Array:
    """float32 [n] of sorted keys: 0 for the first, one more wherever a key is not that of the one before."""
    steps = np.zeros(len(keys[0]), np.float32)
    for key in keys:
        steps[1:] += key[1:] != key[:-1]
    found: Float32Array = np.cumsum(steps > 0, dtype=np.float32)
    return found


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
