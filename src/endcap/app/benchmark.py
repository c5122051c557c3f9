"""The leave-one-out benchmark of the literature, on any folder of sequences: the product as it is, seed by seed.

Every seed starts from the files with an empty workspace and trains as `endcap train` does, text encoding included.
Its headline hides each user's own history (task `discovery`), as most recent papers do; `all` does not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np

from endcap.app.ingest import Progress
from endcap.app.runtime import Shop
from endcap.app.train import Measured, measure
from endcap.core.errors import CallerError, DataError
from endcap.data.datasets import Dataset, amazon_folder
from endcap.evaluate.report import Comparison

FILTERED, UNFILTERED = "discovery", "all"
SETTINGS = """
[train]
split = "leave_one_out"
seed = {seed}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Benchmarked:
    """comparison: every query's mean over the seeds. figures: flat, as the benchmarks record them. notes: what the
    first seed's training decided. seconds: of the first seed, by stage."""

    comparison: Comparison
    figures: dict[str, float]
    notes: tuple[str, ...]
    seconds: dict[str, float]


def benchmark(folder: Path, *, seeds: int, progress: Progress) -> Benchmarked:
    """Train and measure on `sequences.txt` (a line a user: `user item item ...`, oldest first) and, where there is
    one, `items.jsonl` (`id`, `title`, `keywords`). DataError where there is too little to learn from."""
    if seeds < 1:
        raise CallerError(f"{seeds} seeds were asked for.", where="seeds", next_step="Ask for one at least.")
    runs, taken = [], []
    for seed in range(seeds):
        started = time.monotonic()
        runs.append(_one(folder, seed, partial(_tell, progress, seed)))
        taken.append(time.monotonic() - started)
    comparison = _averaged([run.comparison for run in runs])
    figures = _figures(comparison)
    headlines = [run.comparison.figures()[f"ndcg@10_{FILTERED}"] for run in runs]
    figures["ndcg@10_sd_of_seeds"] = stdev(headlines) if seeds > 1 else 0.0
    figures["seconds_per_seed"] = mean(taken)
    figures["users_per_second"] = mean(run.users_per_second for run in runs)
    figures["peak_rss_mb"] = peak_rss_mb()
    return Benchmarked(comparison, figures, runs[0].notes, runs[0].seconds)


@contextmanager
def workspace_for(dataset: Dataset, folder: Path, settings: str, progress: Progress) -> Iterator[Shop]:
    """A workspace that holds what was read from a folder, for as long as it is needed. A DataError that names it, which
    nobody else can find, names the folder instead."""
    with TemporaryDirectory() as place, Shop.open(Shop.init(Path(place) / "shop", settings)) as shop:
        shop.ingest(dataset, progress=progress)
        try:
            yield shop
        except DataError as error:
            if error.where != str(shop.folder):
                raise
            raise DataError(error.what, where=str(folder), next_step="Give it more users, or longer lines.") from error


def check_asked(tasks: Collection[str], folder: Path) -> None:
    """DataError where the folder leaves a task with nobody to ask. tasks: those in which somebody is asked."""
    if UNFILTERED not in tasks:
        raise DataError("No line has two items.", where=str(folder), next_step="Give it users with two items or more.")
    if FILTERED not in tasks:
        raise DataError(
            "Every user's last item is in the same line before it, so that none is left to find with the own history "
            "hidden.",
            where=str(folder),
            next_step="Give it users whose last item is new to them.",
        )


def peak_rss_mb() -> int:
    """The most memory that this process, or one that it waited for, held at once; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


def _tell(progress: Progress, seed: int, stage: str, share: float) -> None:
    progress(f"seed {seed}: {stage}", share)


def _one(folder: Path, seed: int, progress: Progress) -> Measured:
    with workspace_for(amazon_folder(folder), folder, SETTINGS.format(seed=seed), progress) as shop:
        measured = measure(shop, progress=progress)
    check_asked(measured.comparison.tasks, folder)
    return measured


def _averaged(comparisons: Sequence[Comparison]) -> Comparison:
    """One comparison whose values per query are the means over several of the same queries. A model that some seeds
    left out is averaged over those that have it."""
    averaged = Comparison(comparisons[0].ours, seed=comparisons[0].seed)
    for task in comparisons[0].tasks:
        rows = [{row.model: row for row in comparison.rows(task)} for comparison in comparisons]
        for model in dict.fromkeys(model for one in rows for model in one):
            found = [one[model] for one in rows if model in one]
            values = {metric: np.mean([row.values[metric] for row in found], axis=0) for metric in found[0].values}
            totals = {name: mean(row.totals[name] for row in found) for name in found[0].totals}
            averaged.add(task, model, values, totals)
    return averaged


def _figures(comparison: Comparison) -> dict[str, float]:
    """The headline task's figures without its name, the other's marked as unfiltered."""
    flat: dict[str, float] = {}
    for name, value in comparison.figures().items():
        metric, _, model = name.partition("__")
        for task, suffix in ((FILTERED, ""), (UNFILTERED, "_unfiltered")):
            if metric.endswith(f"_{task}") or f"_{task}_" in metric:
                flat[metric.replace(f"_{task}", suffix, 1) + (f"__{model}" if model else "")] = value
    return flat
