"""What a tuned cross-encoder adds to the ranker, by how much is known of a shopper.

`make bench NAME=judge DATASET=beauty DATA=<folder> SEEDS=1`. On what all shoppers did but for their last two acts, a
bi-encoder is tuned and then, from it, a cross-encoder: lists of what was taken next, among two products drawn by how
they sell and two that others took after the same product. The product is trained with `[judge] model` naming it. The
ranker and the weight of the judge come from each shopper's last act but one, the figures from the last, all items
ranked, own history hidden. Nobody in these data has a short history, so each shopper is asked several times, as if only
the last 1, 3 or 7 acts were known, and with all that are; one with fewer acts than a bucket needs is not in it.

Figures, by bucket (`1`, `2-3`, `4-7`, `8+`) and over whole histories (no suffix), means over seeds:

    ndcg@10_<bucket>, ..._with, ..._alone    the ranker; with the judge, whether it stays or not; the first ten in the
                                             judge's order alone
    gain@10_<bucket>, ..._lo, ..._hi         with less without, and its interval over shoppers of the first seed
    stays, gain@10_validation                what training decided, and by what
    ndcg@10_tuned_content, gain@10_tuned_content, ..._lo, ..._hi
                                             whole histories, the same product without a judge, its content vectors by
                                             the tuned bi-encoder; and against the untuned ones
    weight_always, weight_scarce, int8, seconds_tuning, seconds_asked (of one core, a query)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks.leave_one_out import WORKERS, Values, folder_of, gain, pipeline, training
from benchmarks.tuning import ENCODER, say, tuned
from endcap.app.benchmark import FILTERED
from endcap.app.finetune_data import REMEMBERED
from endcap.app.fusion import Fusion, Judged
from endcap.app.parallel import in_order
from endcap.app.plans import Plan
from endcap.app.sources import Fitted
from endcap.app.tasks import Question, question
from endcap.app.train import Training
from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.types import Float32Array
from endcap.data.datasets import amazon_folder
from endcap.evaluate.intervals import paired_difference
from endcap.features.items import ItemTable
from endcap.features.sequences import History
from endcap.features.state import context
from endcap.models.judge import OnnxJudge
from endcap.recommend.candidates import weigh
from endcap.recommend.pipeline import Pipeline
from endcap.recommend.second_look import Weights, acted_on

HELD_OUT = 2  # last acts of each shopper that no tuning reads
POPULAR, NEIGHBOURS = 2, 2  # candidates of a list that were not taken, by how they are drawn
LISTS = 7000  # that the cross-encoder reads
STOPPED_BY = 1000  # shoppers by whose lists tunings are stopped
MEASURED = 6000  # shoppers, by lot
BUCKETS: dict[str, tuple[int, int | None]] = {"1": (1, 1), "2-3": (2, 3), "4-7": (4, 7), "8+": (8, None)}
WHOLE = (1, None)
ALONE = 1e6  # a weight beside which the ranker's word is nothing
BI: dict[str, Any] = {
    "task": {"kind": "pairs", "decay": 0.5},
    "base": {"max_length": 32, "dropout": 0.0},
    "train": {"lr": 2e-4, "batch_size": 256, "evaluations": 3, "epochs": 2, "patience": 3},
}
CROSS: dict[str, Any] = {
    "task": {"kind": "ranking", "architecture": "cross"},
    "base": {"max_length": 96},
    "train": {"lr": 1e-4, "epochs": 1, "evaluations": 4, "batch_size": 40},
}


def run(data: Path | None, dataset: str | None, seeds: int) -> dict[str, float]:
    folder = folder_of(data, dataset)
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        with TemporaryDirectory() as place:
            for name, value in _one(folder, Path(place), seed):
                say(f"seed {seed} {name} {value:.4f}")
                found.setdefault(name, []).append(value)
    return {name: values[0] if name.endswith(("_lo", "_hi")) else mean(values) for name, values in found.items()}


def _one(folder: Path, place: Path, seed: int) -> Iterator[tuple[str, float]]:
    """(name of a figure, its value), of one seed. place: where the tuned models go."""
    started = time.monotonic()
    tune_judge(Lines.read(folder), place, seed)
    yield "seconds_tuning", time.monotonic() - started
    with training(folder, seed, f'\n[judge]\nmodel = "{(place / "cross").absolute()}"\n') as (begun, steps):
        taught = begun.teach(steps)
        fusion = begun.fuse(taught)
        tried = begun.try_judge(steps, taught, fusion)
        if tried is None or tried.judged is None or tried.trial is None:
            raise CallerError(
                tried.notes[0] if tried else "Nothing can be learned.", where=str(folder), next_step="Take more users."
            )
        say(tried.notes[0])
        yield "stays", float(tried.trial.stays)
        yield "gain@10_validation", tried.trial.gain.mean
        yield "weight_always", tried.judged.weights.always
        yield "weight_scarce", tried.judged.weights.scarce
        yield "int8", float(tried.judged.judge.settings.precision == "int8")
        del taught
        plain: list[np.ndarray] = []
        yield from _measured(begun, steps, fusion, tried.judged, plain)
    with training(folder, seed, f'\n[text]\nmodel = "{(place / "bi" / ENCODER).absolute()}"\n') as (begun, steps):
        fusion = begun.fuse(begun.teach(steps))
        fitted = begun.fit_at(steps.test)
        by_tuned = ndcg_known(begun, steps, fitted, {"": pipeline(begun, fitted, fusion)}, *WHOLE)[""]
    yield "ndcg@10_tuned_content", float(by_tuned.mean())
    gained = paired_difference(by_tuned, plain[0])
    ends = {"": gained.mean, "_lo": gained.lo, "_hi": gained.hi}
    yield from ((f"gain@10_tuned_content{end}", value) for end, value in ends.items())


def _measured(
    begun: Training, steps: Plan, fusion: Fusion, judged: Judged, plain: list[np.ndarray]
) -> Iterator[tuple[str, float]]:
    """plain: takes the figures of each shopper by the product without the judge, whole histories."""
    fitted, once = begun.fit_at(steps.test), Once(judged.judge)
    weights = {"_with": judged.weights, "_alone": Weights(judged.weights.top, always=ALONE)}
    ways = {"": fusion} | {name: replace(fusion, judged=Judged(once, weighs)) for name, weighs in weights.items()}
    pipelines = {name: pipeline(begun, fitted, way) for name, way in ways.items()}
    for bucket, (least, most) in ({"": WHOLE} | {f"_{name}": cut for name, cut in BUCKETS.items()}).items():
        values = ndcg_known(begun, steps, fitted, pipelines, least, most)
        if not len(values[""]):
            say(f"nobody has {least} acts")
            continue
        plain.append(values[""])
        for name, one in values.items():
            yield f"ndcg@10{bucket}{name}", float(one.mean())
        gained = paired_difference(values["_with"], values[""])
        ends = {"": gained.mean, "_lo": gained.lo, "_hi": gained.hi}
        yield from ((f"gain@10{bucket}{end}", value) for end, value in ends.items())
        yield f"queries{bucket}", float(len(values[""]))
    yield "seconds_asked", _seconds_asked(begun, steps, pipelines["_with"], judged.judge)


class Once:
    """A judge that is asked once where the same question follows: two ways of hearing it cost one."""

    def __init__(self, judge: OnnxJudge) -> None:
        self._judge, self._said = judge, dict[tuple[str, ...], Float32Array]()

    def judge(self, history: list[str], candidates: list[str]) -> Float32Array:
        key = (*history, "", *candidates)
        if key not in self._said:
            if len(self._said) > 1000:
                self._said.clear()
            self._said[key] = self._judge.judge(history, candidates)
        return self._said[key]


def ndcg_known(
    begun: Training, steps: Plan, fitted: Fitted, pipelines: Mapping[str, Pipeline], least: int, most: int | None
) -> Values:
    """NDCG@10 of each shopper with so many acts, by several pipelines with the same sources, as if only the last `most`
    acts were known."""
    cases, ids = steps.test.cases[FILTERED].cases, fitted.table.ids
    drawn = np.sort(rng(0, "shoppers to judge").permutation(len(cases))[:MEASURED])
    sold = fitted.stats.baskets > 0

    def gains(piece: range) -> list[list[float]]:
        whole = [question(FILTERED, cases[drawn[place]], begun.histories, ids) for place in piece]
        some = [as_known(one, most) for one in whole if len(acted_on(one.context)) >= least]
        said = weigh(fitted.sources, [one.context for one in some])
        found = []
        for one in pipelines.values():
            ranked = one.rank([(asked.query, asked.context) for asked in some], said) if some else []
            for best in ranked[:1]:
                for error in best.degraded.values():
                    raise error
            found.append(
                [gain(best.items[sold[best.items]], asked.targets) for best, asked in zip(ranked, some, strict=True)]
            )
        return [list(row) for row in zip(*found, strict=True)]

    rows = np.array(in_order(gains, len(drawn), WORKERS, lambda share: None)).reshape(-1, len(pipelines))
    return dict(zip(pipelines, rows.T, strict=True))


def as_known(asked: Question, most: int | None) -> Question:
    """The question as if only the last acts of the shopper were known."""
    if most is None:
        return asked
    held = asked.context
    last = slice(-most, None)
    history = History(held.items[last], held.kinds[last], held.ts_ms[last], held.baskets[last])
    return replace(asked, context=context(history, held.now_ms, held.placement, row=held.row))


def _seconds_asked(begun: Training, steps: Plan, asked: Pipeline, judge: OnnxJudge) -> float:
    """Processor time of one second look at ten candidates."""
    assert asked.second_look is not None
    cases = steps.test.cases[FILTERED].cases[:20]
    some = [question(FILTERED, case, begun.histories, asked.table.ids) for case in cases]
    ranked = asked.rank([(one.query, one.context) for one in some])
    top = asked.second_look.weights.top
    read = [asked.second_look.read(one.context, best.items[:top]) for one, best in zip(some, ranked, strict=True)]
    started = time.process_time()
    for history, candidates in read:
        if history:
            judge.judge(history, candidates)
    return (time.process_time() - started) / len(read)


class Lines:
    """items: positions of each shopper's acts but the last two, oldest first. texts: of every item, as the product
    reads them."""

    def __init__(self, items: list[np.ndarray], texts: list[str]) -> None:
        self.items, self.texts = items, texts
        acts = np.concatenate([np.empty(0, np.int64), *items])
        self.sold = np.bincount(acts, minlength=len(texts)) * np.array([bool(text) for text in texts])
        self.after: dict[int, list[int]] = {}
        for line in items:
            for before, then in zip(line[:-1].tolist(), line[1:].tolist(), strict=True):
                if texts[then]:
                    self.after.setdefault(before, []).append(then)

    @classmethod
    def read(cls, folder: Path) -> Lines:
        dataset = amazon_folder(folder)
        events = dataset.events.collect().sort("user_id", "ts_ms", maintain_order=True)
        table = ItemTable.build(dataset.items, events["item_id"].unique().to_list())
        place = {item: number for number, item in enumerate(table.ids.ids)}
        lines = [
            np.array([place[item] for item in group["item_id"]][:-HELD_OUT], np.int64)
            for _, group in events.group_by("user_id", maintain_order=True)
        ]
        return cls(lines, table.texts())

    def anchor(self, line: np.ndarray) -> list[str]:
        return [self.texts[item] for item in line if self.texts[item]][-REMEMBERED:]


def tune_judge(lines: Lines, place: Path, seed: int) -> None:
    """A cross-encoder in `place / "cross" / "model"`, by way of a bi-encoder."""
    order = rng(seed, "shoppers to tune by").permutation(len(lines.items))
    stopped = min(STOPPED_BY, len(order) // 5)
    valid, rest = order[:stopped], order[stopped:]
    pairs = pl.concat([pairs_of(lines, rest, "train"), pairs_of(lines, valid, "valid")])
    told = tuned(pairs, _seeded(BI, seed), save=place / "bi")
    say(f"bi-encoder, {told.seconds:.0f} s: {told.curve}")
    lists = pl.concat([lists_of(lines, rest[:LISTS], "train", seed), lists_of(lines, valid, "valid", seed)])
    settings = _seeded({**CROSS, "base": {**CROSS["base"], "name": str(place / "bi")}}, seed)
    told = tuned(lists, settings, save=place / "cross" / "model")
    say(f"cross-encoder, {told.seconds:.0f} s: {told.curve}")


def pairs_of(lines: Lines, users: np.ndarray, part: str) -> pl.DataFrame:
    """What came next after the last texts: of each act in training, of the last one in validation."""
    rows = []
    for user in users.tolist():
        line = lines.items[user]
        known = [lines.texts[item] for item in line if lines.texts[item]]
        for at in range(1, len(line)) if part == "train" else range(max(1, len(line) - 1), len(line)):
            anchor, text = lines.anchor(line[:at]), lines.texts[line[at]]
            if anchor and text:
                rows.append((anchor, text, known, str(user), part))
    schema = {"anchor": pl.List(pl.String), "candidate": pl.String, "known": pl.List(pl.String)}
    return pl.DataFrame(rows, schema=schema | {"group": pl.String, "part": pl.String}, orient="row")


def lists_of(lines: Lines, users: np.ndarray, part: str, seed: int) -> pl.DataFrame:
    """What each shopper took at an act drawn by lot, among what was not taken: histories are of all lengths then."""
    draw, rows = rng(seed, f"lists of {part}"), []
    share = lines.sold / lines.sold.sum()
    for user in users.tolist():
        line = lines.items[user]
        if len(line) < 2:
            continue
        at = int(draw.integers(1, len(line)))
        anchor, own = lines.anchor(line[:at]), set(line.tolist())
        others = lines.after.get(int(line[at - 1]), [])
        drawn = draw.permutation(others)[: 5 * NEIGHBOURS].tolist()
        near = list(dict.fromkeys(item for item in drawn if item not in own))[:NEIGHBOURS]
        far = [item for item in draw.choice(len(share), 40, p=share).tolist() if item not in own and item not in near]
        rest = [*near, *list(dict.fromkeys(far))[: POPULAR + NEIGHBOURS - len(near)]]
        if anchor and lines.texts[line[at]]:
            for item, label in [(line[at], 1.0), *((item, 0.0) for item in rest)]:
                rows.append((anchor, lines.texts[item], label, f"{part} {user}", part))
    schema = {"anchor": pl.List(pl.String), "candidate": pl.String, "label": pl.Float64}
    return pl.DataFrame(rows, schema=schema | {"group": pl.String, "part": pl.String}, orient="row")


def _seeded(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    return {**settings, "train": {**settings["train"], "seed": seed}}
