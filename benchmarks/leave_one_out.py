"""What the benchmarks on a folder of sequences share: finding it, training in a workspace of its own, and NDCG@10 a
user on the test target, own history hidden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.run import tell
from endcap.app.benchmark import FILTERED, SETTINGS, check_asked, workspace_for
from endcap.app.fusion import Fusion
from endcap.app.parallel import in_order
from endcap.app.plans import Plan
from endcap.app.publish import build_pipeline
from endcap.app.sources import Fitted
from endcap.app.tasks import question
from endcap.app.train import Training
from endcap.core.errors import CallerError
from endcap.core.types import Int32Array
from endcap.data.datasets import amazon_folder
from endcap.recommend.candidates import weigh
from endcap.recommend.pipeline import Pipeline

METRIC = "ndcg@10"
WORKERS = 2
Values = dict[str, np.ndarray]


def folder_of(data: Path | None, dataset: str | None) -> Path:
    """The folder itself, or the one in it that is named after the data set. CallerError where neither has sequences."""
    if data is None:
        raise CallerError("No folder was named.", where="DATA", next_step="Add DATA=<folder with sequences.txt>.")
    if not dataset:
        raise CallerError("The data set has no name.", where="DATASET", next_step="Add DATASET=<name for the results>.")
    places = (data, data / dataset, data / f"amazon-{dataset}")
    found = next((place for place in places if (place / "sequences.txt").is_file()), None)
    if found is None:
        raise CallerError(
            f"There is no sequences.txt of {dataset}.", where=str(data), next_step="Check DATA and DATASET."
        )
    return found


@contextmanager
def training(folder: Path, seed: int, settings: str = "") -> Iterator[tuple[Training, Plan]]:
    """A training on the folder that has read its log, and its plan. settings: appended to the benchmark's own.
    DataError where there is too little to learn from, or nobody to ask."""
    with workspace_for(amazon_folder(folder), folder, SETTINGS.format(seed=seed) + settings, tell) as shop:
        begun = Training(shop, tell)
        steps = begun.prepare(test=True, release=False)
        check_asked({task for task, cases in steps.test.cases.items() if len(cases)}, folder)
        yield begun, steps


def pipeline(begun: Training, fitted: Fitted, fusion: Fusion) -> Pipeline:
    shown = np.ones(len(fitted.table), np.bool_)
    return build_pipeline(fitted, fusion, begun.config.train.per_source, shown=shown)[0]


def ndcg_by_user(begun: Training, steps: Plan, fitted: Fitted, pipelines: Mapping[str, Pipeline]) -> Values:
    """NDCG@10 of each user by pipelines with some of the sources, which are asked once for all of them. Equal scores
    stand in the order of the items, as in answers."""
    cases, ids = steps.test.cases[FILTERED].cases, fitted.table.ids
    sold, names = fitted.stats.baskets > 0, [source.name for source in fitted.sources]

    def gains(piece: range) -> list[list[float]]:
        some = [question(FILTERED, cases[place], begun.histories, ids) for place in piece]
        said = weigh(fitted.sources, [one.context for one in some])
        found = []
        for one in pipelines.values():
            columns = [names.index(source.name) for source in one.sources]
            heard = [tuple(scores[column] for column in columns) for scores in said]
            ranked = one.rank([(asked.query, asked.context) for asked in some], heard)
            found.append(
                [gain(best.items[sold[best.items]], asked.targets) for best, asked in zip(ranked, some, strict=True)]
            )
        return [list(row) for row in zip(*found, strict=True)]

    rows = np.array(in_order(gains, len(cases), WORKERS, lambda share: None))
    return dict(zip(pipelines, rows.T, strict=True))


def gain(ranked: Int32Array, targets: Int32Array) -> float:
    """NDCG@10 of the one target; 0 where it was never sold before."""
    hits = np.flatnonzero(np.isin(ranked[:10], targets))
    return float(1 / np.log2(hits[0] + 2)) if len(hits) else 0.0
