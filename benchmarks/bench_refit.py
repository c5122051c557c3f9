"""A week later: a release as it was, the same refitted, and one trained anew, on what shoppers bought next.

`make bench NAME=refit`, on The Complete Journey. Everything before the last fifth of the log is trained on; then a week
of purchases comes in; then each of three releases answers the first baskets of the four weeks after, of the households
that the first release knows. All three know what every household did up to the moment (a server folds it in as it
happens); they differ in the models. The sequence model, which the demo's training leaves out on this shop, is kept here
(`train.optional = []`), so that going on from its weights counts in the time.

    ndcg@10_<task>__stale, __refit, __full   with `_lo` and `_hi`; tasks as in the demo
    ndcg@10_<task>_loss                      full less refit, over households, with `_lo` and `_hi`
    seconds_refit, seconds_full, seconds_ratio
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from benchmarks.run import tell
from endcap import Shop
from endcap.app.evaluation import ranked_by
from endcap.app.publish import Release, read_release
from endcap.app.tasks import cases, successes
from endcap.cli.demo import DATASET, SETTINGS
from endcap.data.datasets import DATASETS, Dataset
from endcap.evaluate.intervals import interval_of, paired_difference, resampled_means
from endcap.evaluate.metrics import measure
from endcap.evaluate.protocols import Cases
from endcap.features.sequences import Histories

DAY_MS = 86_400_000
SHARE = 0.8
UPDATE_DAYS, ASKED_DAYS = 7, 28
METRIC = "ndcg@10"
Values = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """before, week: the log to train on first, and what then comes in. asked: task -> what is bought after that."""

    before: pl.DataFrame
    week: pl.DataFrame
    asked: Mapping[str, Cases]

    @classmethod
    def of(cls, dataset: Dataset) -> Split:
        events = dataset.events.collect()
        start_ms = int(events["ts_ms"].quantile(SHARE) or 0)
        known = events.filter(pl.col("ts_ms") < start_ms).select("user_id").unique()
        events = events.join(known, on="user_id", how="semi", maintain_order="left")
        end_ms = start_ms + UPDATE_DAYS * DAY_MS
        asked = cases(successes(events.lazy()), end_ms, end_ms + ASKED_DAYS * DAY_MS, cart_min_items=6, seed=0)
        return cls(
            events.filter(pl.col("ts_ms") < start_ms),
            events.filter(pl.col("ts_ms").is_between(start_ms, end_ms, closed="left")),
            asked,
        )


def run() -> dict[str, float]:
    dataset = DATASETS.get(DATASET)()
    split = Split.of(dataset)
    with TemporaryDirectory() as place:
        settings = SETTINGS.replace("[train]\n", "[train]\noptional = []\n")
        with Shop.open(Shop.init(Path(place) / "shop", settings)) as shop:
            shop.ingest(split.before, items=dataset.items, users=dataset.users)
            stale = shop.train(evaluate=False, progress=tell).manifest.release_id
            shop.ingest(split.week)
            started = time.monotonic()
            refitted = shop.refit(progress=tell).manifest.release_id
            refit_s = time.monotonic() - started
            started = time.monotonic()
            full = shop.train(evaluate=False, progress=tell).manifest.release_id
            full_s = time.monotonic() - started
            log = shop.store.events().collect()
            found = {
                name: _measured(read_release(shop.releases, release), log, split.asked)
                for name, release in (("stale", stale), ("refit", refitted), ("full", full))
            }
    figures = {"events": split.before.height, "events_of_the_week": split.week.height}
    figures |= {"seconds_refit": refit_s, "seconds_full": full_s, "seconds_ratio": full_s / refit_s}
    for task, asked in split.asked.items():
        figures[f"queries_{task}"] = len(asked)
        for name, values in found.items():
            inside = interval_of(float(values[task].mean()), resampled_means(values[task]))
            figures |= {f"{METRIC}_{task}__{name}{bound}": value for bound, value in _bounds(inside)}
        loss = paired_difference(found["full"][task], found["refit"][task])
        figures |= {f"{METRIC}_{task}_loss{bound}": value for bound, value in _bounds(loss)}
    return figures


def _measured(release: Release, log: pl.DataFrame, asked: Mapping[str, Cases]) -> Values:
    """NDCG@10 of each case by a release, from the histories as they are at its moment."""
    histories = Histories.build(log.lazy(), release.fitted.table.ids)
    return {
        task: measure(ranked_by(release.fitted, release.pipeline, histories, task, found.cases, workers=2))[METRIC]
        for task, found in asked.items()
    }


def _bounds(inside: object) -> list[tuple[str, float]]:
    return [(bound, getattr(inside, name)) for bound, name in (("", "mean"), ("_lo", "lo"), ("_hi", "hi"))]
