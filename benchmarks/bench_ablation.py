"""What each part is worth: the product without each source in turn and without the ranker.

`make bench NAME=ablation DATASET=beauty DATA=<folder> SEEDS=3`. Leave-one-out, all items ranked, own history hidden,
test target. The sources are fitted once a seed. The whole is the ranker over all sources, also where the product would
leave some out or take the blend instead, as it may on small data. For each source taken away the ranker is fitted
again, with as many trees as the whole has, on what the others propose; a *family* (`all_graph`) goes as one.

    ndcg@10, _lo, _hi           the whole; the mean over seeds
    ndcg@10_without_<source>    and what is lost by it, `ndcg@10_lost_<source>` with `_lo` and `_hi`, over users
    ndcg@10_without_ranker      the blend in its place; `_without_ranker_and_blend`: rank fusion of
                                the blend's shortlist

`make plots` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.leave_one_out import METRIC, Values, folder_of, ndcg_by_user, pipeline, training
from benchmarks.run import tell
from benchmarks.tables import FAMILIES
from endcap.app.fusion import Fusion
from endcap.app.sources import Fitted
from endcap.app.train import Taught, Training
from endcap.core.errors import CallerError
from endcap.evaluate.intervals import interval_of, paired_difference, resampled_means
from endcap.models.blend import fit_blend
from endcap.models.ranker_fit import fit_ranker, try_ranker
from endcap.models.worth import without
from endcap.recommend.pipeline import Pipeline


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
    return figures


def _values(folder: Path, seed: int) -> Values:
    """NDCG@10 a user: of the whole, under "", and without each part."""
    with training(folder, seed) as (begun, steps):
        taught = begun.teach(steps)
        if taught.examples is None:
            raise CallerError(
                "Nothing in these sequences teaches a ranker, so that no part of it can be taken away.",
                where=str(folder),
                next_step="Name a folder with more users, or longer lines.",
            )
        fitted = begun.fit_at(steps.test)
        tell(f"seed {seed}: rankers without each part", 0.0)
        found = ndcg_by_user(begun, steps, fitted, dict(_variants(begun, taught, fitted)))
    for name, values in found.items():
        tell(f"seed {seed} without {name or 'nothing'}: {values.mean():.4f}", 0.0)
    return found


def _variants(begun: Training, taught: Taught, fitted: Fitted) -> Iterator[tuple[str, Pipeline]]:
    """What is missing, and what answers without it."""
    config = begun.config
    seed, threads = config.train.seed, config.train.threads
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
        yield name, pipeline(begun, fewer, fusion(gone))
    yield "ranker", pipeline(begun, fitted, Fusion(fit_blend(taught.examples, taught.names), taught.shortlist))
    yield "ranker_and_blend", pipeline(begun, fitted, Fusion(None, taught.shortlist))
