"""Items nobody has bought yet: does the product find who wants them, and what does showing them cost the others?

`make bench NAME=cold DATASET=beauty DATA=<folder> SEEDS=3`. The last-appearing 5 % of the items, by the order in which
the lines of `sequences.txt` first name them, are new: they are in the catalogue, and no act on them is in the log. Of
what is left, each user's last act is held out, the *warm* target. The product trains on the rest as `endcap train`
does. A user's first act on a new item is the *cold* target: asked with what the user had before it, own history
hidden, all other items ranked, new and old.

    recall@10_cold, ndcg@10_cold        by the whole product
    recall@10_cold__<source>            by one source alone; `__random`: as expected of ten items drawn blindly
    ndcg@10_warm, recall@10_warm        of the warm targets, new items among those that may be shown
    ndcg@10_warm_hidden, ...            while new items may not be shown: what it costs to mix them in
    ..._every_10, ..._every_5           on pages that keep a place in ten (five) for new items: `[slate] new_every`
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.leave_one_out import folder_of
from benchmarks.run import tell
from endcap.app.benchmark import SETTINGS, workspace_for
from endcap.app.parallel import in_order
from endcap.app.publish import Release, read_release
from endcap.app.tasks import Question, question
from endcap.core.types import Int32Array
from endcap.data.datasets import Dataset, amazon_folder
from endcap.evaluate.intervals import interval_of, resampled_means
from endcap.evaluate.metrics import Ranked, measure, rank_in_each
from endcap.evaluate.protocols import Case
from endcap.recommend.candidates import weigh
from endcap.recommend.filters import every
from endcap.recommend.select import Best, NewItems

SHARE = 0.05
PAGE = 10
EVERY = (10, 5)
METRICS = ("ndcg@10", "recall@10")
Values = dict[str, np.ndarray]


class Split:
    """log: the events to learn from. cold, warm: the cases, one a user at most. new: the items that are left out."""

    def __init__(self, dataset: Dataset) -> None:
        events = dataset.events.collect()
        appeared = events["item_id"].unique(maintain_order=True)
        self.new = frozenset(appeared[round((1 - SHARE) * len(appeared)) :])
        is_new = pl.col("item_id").is_in(list(self.new))
        known = events.filter(~is_new).sort("user_id", "ts_ms")
        held_out = (pl.col("ts_ms") == pl.col("ts_ms").max().over("user_id")) & (pl.len().over("user_id") > 1)
        self.log = known.filter(~held_out)
        begun = self.log.group_by("user_id").agg(first_ms=pl.col("ts_ms").min())
        later = events.filter(is_new).join(begun, on="user_id").filter(pl.col("ts_ms") > pl.col("first_ms"))
        self.cold = _cases(later.sort("user_id", "ts_ms").unique("user_id", keep="first", maintain_order=True))
        self.warm = _cases(known.filter(held_out))


def run(data: Path | None, dataset: str, seeds: int) -> dict[str, float]:
    folder = folder_of(data, dataset)
    whole = amazon_folder(folder)
    split = Split(whole)
    print(f"{len(split.new)} new items, {len(split.cold)} cold and {len(split.warm)} warm cases", flush=True)
    found: dict[str, list[np.ndarray]] = {}
    for seed in range(seeds):
        for name, values in _one(folder, whole, split, seed).items():
            print(f"{time.strftime('%H:%M:%S')} seed {seed} {name} {values.mean():.4f}", flush=True)
            found.setdefault(name, []).append(values)
    figures: dict[str, float] = {"items": len(whole.items), "new_items": len(split.new)}
    figures |= {"queries_cold": len(split.cold), "queries_warm": len(split.warm)}
    for name, runs in found.items():
        values = np.mean(runs, axis=0)
        inside = interval_of(float(values.mean()), resampled_means(values))
        figures |= {name: inside.mean, f"{name}_lo": inside.lo, f"{name}_hi": inside.hi}
    return figures


def _one(folder: Path, whole: Dataset, split: Split, seed: int) -> Values:
    known = Dataset(whole.name, split.log.lazy(), whole.items, whole.users)
    with workspace_for(known, folder, SETTINGS.format(seed=seed), tell) as shop:
        trained = shop.train(evaluate=False, progress=tell)
        for note in trained.notes:
            print(note)
        release = read_release(shop.releases, trained.manifest.release_id)
        return {**_cold(release, split), **_warm(release, split)}


def _cold(release: Release, split: Split) -> Values:
    sources = [source.name for source in release.fitted.sources]

    def answered(piece: range) -> list[tuple[list[Ranked], list[Int32Array]]]:
        asked = _asked(release, [split.cold[place] for place in piece])
        said = weigh(release.pipeline.sources, [one.context for one in asked])
        found = []
        for one, ranked, evidence in zip(asked, _ranked(release, asked), said, strict=True):
            items = np.arange(len(release.fitted.table), dtype=np.int32)
            items = items[every(release.pipeline.filters, one.query, one.context, items)]
            ours = np.full(len(release.fitted.table), -len(items), np.float32)
            ours[ranked] = -np.arange(len(ranked), dtype=np.float32)
            scores = np.stack([ours[items], *(entry.at(items) for entry in evidence)])
            blind = Ranked(np.array([1]), np.array([0]), len(items))
            places = np.searchsorted(items, one.targets).astype(np.int32)
            found.append(([*rank_in_each(scores, places), blind], _pages(release, one, ranked)))
        return found

    answers = in_order(answered, len(split.cold), 2, lambda share: None)
    models = ["", *(f"__{source}" for source in sources)]
    values: Values = {}
    for column, model in enumerate(models):
        measured = measure([ranks[column] for ranks, _ in answers])
        values |= {f"{metric}_cold{model}": measured[metric] for metric in METRICS}
    values["recall@10_cold__random"] = np.array([PAGE / ranks[-1].n_eligible for ranks, _ in answers])
    return values | _of_pages(release, split.cold, [pages for _, pages in answers], "cold")


def _warm(release: Release, split: Split) -> Values:
    values: Values = {}
    new = release.fitted.stats.baskets == 0
    for name, shown in (("warm_hidden", ~new), ("warm", np.ones(len(new), np.bool_))):
        release.eligible.shown = shown

        def answered(piece: range) -> list[list[Int32Array]]:
            asked = _asked(release, [split.warm[place] for place in piece])
            return [
                [ranked[:PAGE], *_pages(release, one, ranked)]
                for one, ranked in zip(asked, _ranked(release, asked), strict=True)
            ]

        pages = in_order(answered, len(split.warm), 2, lambda share: None)
        values |= _placed(release, split.warm, [row[0] for row in pages], name)
    return values | _of_pages(release, split.warm, [row[1:] for row in pages], "warm")


def _asked(release: Release, cases: Sequence[Case]) -> list[Question]:
    return [question("discovery", case, release.histories, release.fitted.table.ids) for case in cases]


def _ranked(release: Release, asked: Sequence[Question]) -> list[Int32Array]:
    return [found.items for found in release.pipeline.rank([(one.query, one.context) for one in asked])]


def _pages(release: Release, asked: Question, ranked: Int32Array) -> list[Int32Array]:
    """A page for each of `EVERY`."""
    kept = [NewItems(release.fitted.stats.baskets == 0, step).select(asked.query, ranked, ranked[:0]) for step in EVERY]
    return [Best().select(asked.query, ranked, page) for page in kept]


def _of_pages(release: Release, cases: Sequence[Case], pages: Sequence[list[Int32Array]], name: str) -> Values:
    values: Values = {}
    for column, step in enumerate(EVERY):
        values |= _placed(release, cases, [row[column] for row in pages], f"{name}_every_{step}")
    return values


def _placed(release: Release, cases: Sequence[Case], pages: Sequence[Int32Array], name: str) -> Values:
    """NDCG and recall of pages of ten, each for a case of one target."""
    targets = [release.fitted.table.ids.position(case.targets[0]) for case in cases]
    hits = [np.flatnonzero(page == target) for page, target in zip(pages, targets, strict=True)]
    gains = np.array([1 / np.log2(hit[0] + 2) if len(hit) else 0.0 for hit in hits])
    return {f"ndcg@10_{name}": gains, f"recall@10_{name}": (gains > 0).astype(np.float64)}


def _cases(frame: pl.DataFrame) -> list[Case]:
    rows = frame.select("user_id", "ts_ms", "item_id").iter_rows()
    return [Case(user, now_ms, (item,)) for user, now_ms, item in rows]
