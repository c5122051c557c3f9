"""Whether a tuned cross-encoder helps the ranker, and how much it is to weigh: tried on validation.

Shoppers are dealt into two halves. The ranker that puts a shopper's candidates into order for this trial has learned
from the other half, as one that has seen the answers would seem to need no help; so have the weights by which the judge
is heard. The judge stays where NDCG@10 over all shoppers asked is better with it by more than chance.

Nor may the judge have learned from what validation asks, or have been chosen by it: a tuning on the shop's own log
leaves that out (`finetune_data`); of other tables it is for whoever tunes to see to (docs/finetuning.md).

Legend: m candidates at the top of one ranking, q rankings, n candidates of all of them end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from endcap.app.config import Config, JudgeConfig
from endcap.app.examples import asked_as, draw_of
from endcap.app.finetune_data import length_name
from endcap.app.fusion import Judged
from endcap.app.parallel import in_order
from endcap.app.tasks import Question, question
from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.types import Context, Float32Array, Int32Array
from endcap.evaluate.intervals import Difference, paired_difference
from endcap.evaluate.protocols import Case, Cases
from endcap.features.sequences import Histories
from endcap.models.blend import list_loss
from endcap.models.crossfit import K
from endcap.recommend.pipeline import Pipeline, Ranked
from endcap.recommend.second_look import Heard, SecondLook, Weights, acted_on, scarcity, standardised

HALVES = 2
AT_ONCE = 1024
SAMPLED = 64  # lists by which int8 is compared with torch
LEAST = 20  # rankings that each half has to learn weights from
L2, LEAST_RANKER = 1.0, 0.05
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Top:
    """The first candidates of one case, in the ranker's order. user: position of the shopper. items int32, scores
    float32, labels bool: all [m]. ideal: DCG of all targets in front. further: DCG of targets between m and 10, which a
    second look leaves alone. context: None where no target is at the top, so that no order of it is better."""

    user: int
    acts: int
    items: Int32Array
    scores: Float32Array
    labels: NDArray[np.bool_]
    ideal: float
    further: float
    context: Context | None


@dataclass(frozen=True, slots=True)
class Trial:
    """weights: by all that was heard. with_it, without: NDCG@10, means over shoppers of the mean of each one's queries.
    by_length: name of a history's length -> (mean gain, queries). heard: queries that the judge could change."""

    weights: Weights
    with_it: float
    without: float
    gain: Difference
    by_length: Mapping[str, tuple[float, int]]
    queries: int
    users: int
    heard: int

    @property
    def stays(self) -> bool:
        return self.gain.lo > 0


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """judged, trial: None where there is too little to try it on. notes: sentences."""

    judged: Judged | None
    trial: Trial | None
    notes: tuple[str, ...]

    @property
    def kept(self) -> Judged | None:
        """The judge, where it stays."""
        return self.judged if self.trial is not None and self.trial.stays else None


def check(run: Path) -> None:
    """Before hours of training: CallerError where the folder holds no cross-encoder that could judge."""
    from endcap.models.judge_export import load_cross

    if not any((place / "tuned.json").is_file() for place in (run, run / "model")):
        raise CallerError(
            f"There is no finished run in {run}.",
            where="judge.model",
            next_step="Tune one: endcap finetune --task interest --set task.architecture=cross --run RUN",
        )
    load_cross(run)


def halves(users: int, seed: int) -> NDArray[np.int64]:
    """int64 [users]: which half each shopper is in."""
    return rng(seed, "halves of shoppers").permutation(users) % HALVES


def first_few(
    pipelines: Sequence[Pipeline],
    half: NDArray[np.int64],
    histories: Histories,
    tasks: Mapping[str, Cases],
    config: Config,
    wanted: int,
) -> list[Top]:
    """Of cases by lot, until `wanted` of them have a target at the top or all have been ranked. pipelines: one for
    each half of the shoppers."""
    asked = [(task, case) for task, found in tasks.items() for case in found]
    order = rng(config.train.seed, "cases to judge").permutation(len(asked))
    found: list[Top] = []
    for start in range(0, len(order), AT_ONCE):
        block = [asked[place] for place in order[start : start + AT_ONCE]]

        def ranked(piece: range, block: Sequence[tuple[str, Case]] = block) -> list[Top]:
            some = [block[place] for place in piece]
            where = half[[histories.users.position(case.user_id) for _, case in some]]
            parts = ([some[place] for place in np.flatnonzero(where == number)] for number in range(HALVES))
            return [
                top
                for pipeline, part in zip(pipelines, parts, strict=True)
                for top in _ranked(pipeline, histories, part, config)
            ]

        found += in_order(ranked, len(block), config.train.threads, lambda share: None)
        hits = np.flatnonzero([one.context is not None for one in found])
        if len(hits) >= wanted:
            return found[: hits[wanted - 1] + 1]
    return found


def _ranked(pipeline: Pipeline, histories: Histories, cases: Sequence[tuple[str, Case]], config: Config) -> list[Top]:
    """Of each case, and of some once more as if asked by an anonymous visitor, as the ranker's examples are."""
    some = [
        one
        for task, case in cases
        for one in asked_as(
            question(task, case, histories, pipeline.table.ids), task, draw_of(task, case, config.train), config.train
        )
    ]
    if not some:
        return []
    ranked = pipeline.rank([(one.query, one.context) for one in some])
    for error in ranked[0].degraded.values():  # what answers then is not what is tried
        raise error
    return [_top(one, found, config.judge.top) for one, found in zip(some, ranked, strict=True)]


def _top(asked: Question, ranked: Ranked, top: int) -> Top:
    hits = np.isin(ranked.items, asked.targets)
    return Top(
        asked.context.row,
        len(acted_on(asked.context)),
        ranked.items[:top],
        ranked.scores[:top],
        hits[:top],
        float(_discounts(K)[: len(asked.targets) + asked.unreachable].sum()),
        float((_discounts(len(hits)) * hits)[top:].sum()),
        asked.context if hits[:top].any() else None,
    )


def judge_by(
    run: Path,
    stages: Iterable[list[Top]],
    texts: Sequence[str],
    half: NDArray[np.int64],
    config: Config,
    progress: Callable[[float], None],
) -> Found:
    """The judge of a run, tried on validation. stages: what `first_few` gave of each."""
    from endcap.models.judge_export import export_judge

    found = [one for part in stages for one in part]
    reader = SecondLook(_Silent(), texts, Weights(config.judge.top))
    lists = [reader.read(one.context, one.items) for one in found if one.context is not None]
    readable = [(history, candidates) for history, candidates in lists if history and len(candidates) > 1]
    if len(readable) < HALVES * LEAST:
        why = f"only {len(readable)} validation queries have what was bought among the first {config.judge.top}, and"
        why += f" texts to read; it takes {HALVES * LEAST}"
        return Found(None, None, (f"The cross-encoder in {config.judge.model} stays out: {why}.",))
    exported = export_judge(run, readable[:SAMPLED])
    look = SecondLook(exported.judge, texts, Weights(config.judge.top))
    trial = tried(found, listen(look, found, config.train.threads, progress), half, config.judge, config.train.seed)
    note = told(config.judge.model, trial)
    return Found(Judged(exported.judge, trial.weights), trial, (f"{note} {exported.told}" if trial.stays else note,))


class _Silent:
    """Is never asked."""

    def judge(self, history: Sequence[str], candidates: Sequence[str]) -> Float32Array:
        return np.zeros(len(candidates), np.float32)


def listen(
    look: SecondLook, found: Sequence[Top], workers: int, progress: Callable[[float], None]
) -> list[Heard | None]:
    """What the judge says of each; None where its order makes no difference, or it has nothing to read."""

    def hear(piece: range) -> list[Heard | None]:
        some = [found[place] for place in piece]
        return [None if one.context is None else look.hear(one.context, one.items) for one in some]

    return in_order(hear, len(found), workers, progress)


def tried(
    found: Sequence[Top], heard: Sequence[Heard | None], half: NDArray[np.int64], config: JudgeConfig, seed: int
) -> Trial:
    """The judge beside the ranker, each half weighed by what the other taught."""
    pairs = [(top, said) for top, said in zip(found, heard, strict=True) if said is not None]
    learned = [fit_weights([pair for pair in pairs if half[pair[0].user] != out], config.top) for out in range(HALVES)]
    before = np.array([ndcg(top, None, learned[0]) for top in found])
    after = np.array([ndcg(top, said, learned[half[top.user]]) for top, said in zip(found, heard, strict=True)])
    user = np.unique([top.user for top in found], return_inverse=True)[1]
    ours, theirs = (np.bincount(user, values) / np.bincount(user) for values in (after, before))
    return Trial(
        fit_weights(pairs, config.top),
        float(ours.mean()),
        float(theirs.mean()),
        paired_difference(ours, theirs, seed=seed),
        _by_length(found, after - before),
        len(found),
        len(ours),
        len(pairs),
    )


def fit_weights(pairs: Sequence[tuple[Top, Heard]], top: int) -> Weights:
    """Those under which targets are likeliest when one of the first candidates is chosen in proportion to exp(score):
    the softmax over each list (ListNet, Cao et al. 2007), which is convex. How sure the ranker is of its own order is
    fitted beside them and divided out, which does not change an order."""
    from scipy import optimize  # only to learn; it takes a while to import

    if not pairs:
        return Weights(top)
    x = np.concatenate([_columns(ranking, heard) for ranking, heard in pairs])
    labels = np.concatenate([ranking.labels for ranking, _ in pairs]).astype(np.float64)
    sizes = np.array([len(ranking.labels) for ranking, _ in pairs])
    loss = list_loss(x, labels, sizes, L2)
    free = (None, None)
    ranker, always, scarce = optimize.minimize(
        loss, np.array([1.0, 0.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(LEAST_RANKER, None), free, free]
    ).x
    return Weights(top, float(always / ranker), float(scarce / ranker))


def _columns(top: Top, heard: Heard) -> Float64Array:
    """float64 [m, 3]: what the ranker says, what the judge says, and that by how scarce the shopper's acts are."""
    return np.column_stack([standardised(top.scores), heard.z, heard.z * scarcity(heard.acts)])


def ndcg(top: Top, heard: Heard | None, weights: Weights) -> float:
    """NDCG@10 of one case, in the ranker's order or after the judge was heard."""
    order = np.arange(len(top.items))
    if heard is not None:
        mixed = standardised(top.scores) + weights.of(heard.acts) * heard.z
        order = np.lexsort((top.items, -mixed))
    return float((_discounts(len(order)) * top.labels[order]).sum() + top.further) / top.ideal


def told(model: str, trial: Trial) -> str:
    """The decision, and what it rests on, in two sentences."""
    verdict = "stays" if trial.stays else "stays out"
    gain, weights = trial.gain, trial.weights
    lengths = ", ".join(f"{name}: {mean:+.4f} ({n:,})" for name, (mean, n) in trial.by_length.items())
    weighs = f"It weighs {weights.always:.2f} {weights.scarce:+.2f} / (1 + log(1 + acts)) beside the ranker's 1."
    return (
        f"The cross-encoder in {model} {verdict}: NDCG@10 {trial.with_it:.4f} with, {trial.without:.4f} without, on "
        f"{trial.queries:,} validation queries of {trial.users:,} shoppers, each half of them weighed by the other "
        f"(gain {gain.mean:+.4f}, 95 % interval {gain.lo:+.4f} to {gain.hi:+.4f}; {trial.heard:,} could change). "
        f"By acts before, with queries in brackets, {lengths}." + (f" {weighs}" if trial.stays else "")
    )


def _by_length(found: Sequence[Top], gains: Float64Array) -> dict[str, tuple[float, int]]:
    """Those with any history, the shortest first."""
    acts = np.array([top.acts for top in found])
    names = np.array([length_name(number) for number in acts])
    parts = {name: (acts > 0) & (names == name) for name in map(length_name, (1, 2, 4, 8))}
    return {name: (float(gains[part].mean()), int(part.sum())) for name, part in parts.items() if part.any()}


def _discounts(n: int) -> Float64Array:
    """float64 [n]: what a target at each place counts, 0 behind the tenth."""
    places = np.arange(1, n + 1)
    return np.where(places <= K, 1 / np.log2(places + 1), 0.0)
