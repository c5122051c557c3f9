"""What each part is worth: the product without each source in turn and without the ranker, and what less time buys.

`make bench NAME=ablation DATASET=beauty DATA=<folder> SEEDS=3`. Leave-one-out, all items ranked, own history hidden,
test target. The sources are fitted once a seed. For each one taken away the ranker is fitted again, with as many trees
as the whole has, on what the others propose; a *family* (`all_graph`) goes as one.

    ndcg@10, _lo, _hi           the whole; the mean over seeds
    ndcg@10_without_<source>    and what is lost by it, `ndcg@10_lost_<source>` with `_lo` and `_hi`, over users
    ndcg@10_without_ranker      the blend in its place; `_without_ranker_and_blend`: rank fusion
    ndcg@10_within_<name>       of a whole training with less, seed 0; `seconds_within_<name>`: from files to a
                                model that is ready to be measured

`python -m benchmarks.plots` draws the figures into docs/images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.bench_amazon import folder_of
from endcap.app.benchmark import SETTINGS
from endcap.app.fusion import Fusion
from endcap.app.parallel import in_order
from endcap.app.plans import Plan
from endcap.app.publish import build_pipeline
from endcap.app.runtime import Shop
from endcap.app.sources import Fitted
from endcap.app.tasks import question
from endcap.app.train import Taught, Training
from endcap.core.types import Int32Array
from endcap.data.datasets import amazon_folder
from endcap.evaluate.intervals import interval_of, paired_difference, resampled_means
from endcap.models.blend import fit_blend
from endcap.models.ranker import fit_ranker, try_ranker
from endcap.models.worth import without
from endcap.recommend.candidates import weigh
from endcap.recommend.pipeline import Pipeline

METRIC, TASK = "ndcg@10", "discovery"
FAMILIES = {
    "graph": ("transitions", "transitions_last", "second_hop"),
    "neighbours": ("knn", "knn_last", "ease", "shoppers"),
    "texts": ("content", "words"),
    "popularity": ("trending", "popular"),
}
COUNTED = (
    '"knn", "knn_last", "transitions", "transitions_last", "second_hop", "ease", "shoppers", "trending", "popular"'
)
# What less time buys. The last is the product as it is.
WITHIN = {
    "graph": 'sources = ["transitions", "popular"]\n',
    "counted": f"sources = [{COUNTED}]\n",
    "counted_and_texts": f'sources = [{COUNTED}, "content", "words"]\n',
    "four_epochs": "\n[sequence]\nepochs = 4\n",
    "everything": "",
}
Values = dict[str, np.ndarray]


def run(data: Path | None, dataset: str, seeds: int) -> dict[str, float]:
    folder = folder_of(data, dataset)
    runs = [_values(folder, seed) for seed in range(seeds)]
    values = {
        name: np.mean([one[name] for one in runs], axis=0) for name in runs[0] if all(name in one for one in runs)
    }
    whole = values.pop("")
    inside = interval_of(float(whole.mean()), resampled_means(whole))
    figures = {METRIC: inside.mean, f"{METRIC}_lo": inside.lo, f"{METRIC}_hi": inside.hi, "queries": len(whole)}
    for name, less in values.items():
        lost = paired_difference(whole, less)
        figures[f"{METRIC}_without_{name}"] = float(less.mean())
        figures |= {f"{METRIC}_lost_{name}": lost.mean, f"{METRIC}_lost_{name}_lo": lost.lo}
        figures[f"{METRIC}_lost_{name}_hi"] = lost.hi
    return figures | _within(folder)


def _values(folder: Path, seed: int) -> Values:
    """NDCG@10 a user: of the whole, under "", and without each part."""
    with TemporaryDirectory() as place, Shop.open(Shop.init(Path(place) / "shop", SETTINGS.format(seed=seed))) as shop:
        shop.ingest(amazon_folder(folder))
        training = Training(shop, _tell)
        steps = training.prepare(test=True, release=False)
        taught = training.teach(steps)
        fitted = training.fit_at(steps.test)
        _tell(f"seed {seed}: rankers without each part", 0.0)
        found = _tested(training, steps, fitted, dict(_variants(training, taught, fitted)))
    for name, values in found.items():
        _tell(f"seed {seed} without {name or 'nothing'}: {values.mean():.4f}", 0.0)
    return found


def _variants(training: Training, taught: Taught, fitted: Fitted) -> Iterator[tuple[str, Pipeline]]:
    """What is missing, and what answers without it."""
    config = training.config
    seed, threads = config.train.seed, config.train.threads
    assert taught.examples is not None
    trees = try_ranker(taught.examples, taught.names, config.ranker, seed, threads).trees

    def fusion(missing: Sequence[str]) -> Fusion:
        examples, names = taught.examples, taught.names
        for source in missing:
            examples, names = without(examples, names, source, config.train.per_source)
        kept = examples.of(np.bincount(examples.queries(), examples.labels, len(examples.sizes)) > 0)
        return Fusion(fit_ranker(kept, names, config.ranker, trees, seed, threads), taught.shortlist)

    present = [source.name for source in fitted.sources]
    families = {name: [one for one in family if one in present] for name, family in FAMILIES.items()}
    missing = {
        "": [],
        **{name: [name] for name in present},
        **{f"all_{name}": one for name, one in families.items() if one},
    }
    for name, gone in missing.items():
        fewer = replace(fitted, sources=tuple(one for one in fitted.sources if one.name not in gone))
        yield name, _pipeline(training, fewer, fusion(gone))
    yield "ranker", _pipeline(training, fitted, Fusion(fit_blend(taught.examples, taught.names), taught.shortlist))
    yield "ranker_and_blend", _pipeline(training, fitted, Fusion(None, taught.shortlist))


def _within(folder: Path) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, settings in WITHIN.items():
        with TemporaryDirectory() as place:
            started = time.monotonic()
            with Shop.open(Shop.init(Path(place) / "shop", SETTINGS.format(seed=0) + settings)) as shop:
                shop.ingest(amazon_folder(folder))
                training = Training(shop, _tell)
                steps = training.prepare(test=True, release=False)
                fusion = training.fuse(training.teach(steps))
                fitted = training.fit_at(steps.test)
                figures[f"seconds_within_{name}"] = time.monotonic() - started
                whole = {"": _pipeline(training, fitted, fusion)}
                figures[f"{METRIC}_within_{name}"] = float(_tested(training, steps, fitted, whole)[""].mean())
        print(f"within {name}: {figures[f'{METRIC}_within_{name}']:.4f} in {figures[f'seconds_within_{name}']:.0f} s")
    return figures


def _pipeline(training: Training, fitted: Fitted, fusion: Fusion) -> Pipeline:
    shown = np.ones(len(fitted.table), np.bool_)
    return build_pipeline(fitted, fusion, training.config.train.per_source, shown=shown)[0]


def _tested(training: Training, steps: Plan, fitted: Fitted, pipelines: Mapping[str, Pipeline]) -> Values:
    """NDCG@10 of each user by pipelines with some of the sources, which are asked once for all of them."""
    cases, ids = steps.test.cases[TASK].cases, fitted.table.ids
    sold, names = fitted.stats.baskets > 0, [source.name for source in fitted.sources]

    def gains(piece: range) -> list[list[float]]:
        some = [question(TASK, cases[place], training.histories, ids) for place in piece]
        said = weigh(fitted.sources, [one.context for one in some])
        found = []
        for pipeline in pipelines.values():
            columns = [names.index(source.name) for source in pipeline.sources]
            heard = [tuple(one[column] for column in columns) for one in said]
            ranked = pipeline.rank([(one.query, one.context) for one in some], heard)
            found.append(
                [_gain(one.items[sold[one.items]], asked.targets) for one, asked in zip(ranked, some, strict=True)]
            )
        return [list(row) for row in zip(*found, strict=True)]

    rows = np.array(in_order(gains, len(cases), 2, lambda share: None))
    return dict(zip(pipelines, rows.T, strict=True))


def _gain(ranked: Int32Array, targets: Int32Array) -> float:
    """NDCG@10 of the one target; 0 where it was never sold before."""
    hits = np.flatnonzero(np.isin(ranked[:10], targets))
    return float(1 / np.log2(hits[0] + 2)) if len(hits) else 0.0


def _tell(stage: str, share: float) -> None:
    if share == 0.0 and stage:
        print(f"{time.strftime('%H:%M:%S')} {stage}", flush=True)
