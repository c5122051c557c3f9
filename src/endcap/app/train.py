"""Training: sources fitted on the past, a ranker fitted on what came next, both measured on what came after that.

The log is split by time, 6:2:2 by default (see `plans` for the other way).
    1. Lasting sources are fitted on the training part.
    2. At several moments of the validation part, fresh sources are fitted on everything before the moment, and each
       user's first basket after it gives examples. The ranker learns from these alone, so it never sees a source
       score an event the source was fitted on. Where a blend of scores does as well, it takes the ranker's place.
    3. All sources are fitted again on training and validation, and everything is measured once on the test part.
    4. For the release all sources are fitted on the whole log, with the ranker as it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.app.evaluation import compare, users_per_second
from endcap.app.examples import examples_at, join, shortlist_for
from endcap.app.fusion import Fusion, fuse
from endcap.app.ingest import Progress
from endcap.app.plans import Plan, Stage, plan
from endcap.app.publish import build_pipeline, write_release
from endcap.app.sequences import SequenceFits
from endcap.app.sources import Fitted, fit_fresh, fit_lasting, idle
from endcap.app.tasks import successes
from endcap.core.artifacts import Manifest
from endcap.core.determinism import seed_everything
from endcap.core.errors import CallerError, DataError
from endcap.core.protocols import CandidateSource
from endcap.core.types import Float32Array
from endcap.evaluate.report import Comparison
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.features.stats import ItemStats
from endcap.recommend.pipeline import Pipeline

if TYPE_CHECKING:
    from endcap.app.runtime import Shop

MIN_EVENTS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """manifest: of the release, committed and not yet published. comparison: None where it was not asked for.
    notes: sentences on what was decided. seconds: by stage.
    """

    manifest: Manifest
    comparison: Comparison | None
    notes: tuple[str, ...]
    seconds: dict[str, float]


def train(shop: Shop, *, evaluate: bool, progress: Progress) -> Trained:
    """See the module. Raises DataError where there is nothing to learn from."""
    return _Training(shop, progress).run(evaluate)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A training that stopped at the test. users_per_second: ranked, through all sources and the ranker."""

    comparison: Comparison
    notes: tuple[str, ...]
    seconds: dict[str, float]
    users_per_second: float


def measure(shop: Shop, *, progress: Progress) -> Measured:
    """What `train` would publish, measured, without the release."""
    return _Training(shop, progress).measure()


class _Training:
    """One run. Holds what its stages share: the log as arrays, the catalogue, content vectors, and the clock."""

    def __init__(self, shop: Shop, progress: Progress) -> None:
        self.shop, self.config, self._progress = shop, shop.config, progress
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self._stage, self._since = "", time.monotonic()
        self._sequences: SequenceFits | None = None
        self._left_out: set[str] = set()

    def run(self, evaluate: bool) -> Trained:
        steps, fusion = self._learn(test=evaluate, release=True)
        comparison = self._evaluate(steps.test, fusion)[0] if evaluate else None
        fitted = self._fit_all(steps.end_ms)
        self.stage("write release")
        manifest = write_release(
            self.shop.releases,
            fitted=fitted,
            histories=self.histories,
            fusion=fusion,
            config=self.config,
            data=self._data(),
            metrics=comparison.figures() if comparison else {},
            evaluation=comparison.to_dict() if comparison else None,
            now_ms=self.shop.clock(),
        )
        self.stage("")
        return Trained(manifest, comparison, tuple(self.notes), self.seconds)

    def measure(self) -> Measured:
        steps, fusion = self._learn(test=True, release=False)
        comparison, pipeline = self._evaluate(steps.test, fusion)
        self.stage("")
        task, asked = next(iter(steps.test.cases.items()))
        speed = users_per_second(pipeline, self.histories, task, asked.cases, workers=self.config.train.threads)
        return Measured(comparison, tuple(self.notes), self.seconds, speed)

    def stage(self, name: str, share: float = 0.0) -> None:
        """Tell the progress, and book the time since the last stage began."""
        if name != self._stage:
            if self._stage:
                now = time.monotonic()
                self.seconds[self._stage] = self.seconds.get(self._stage, 0) + now - self._since
            self._stage, self._since = name, time.monotonic()
        if name:
            self._progress(name, share)

    def _learn(self, *, test: bool, release: bool) -> tuple[Plan, Fusion]:
        """All that comes before the test part is looked at. test, release: what will be fitted after it."""
        seed_everything(self.config.train.seed)
        self._read()
        steps = plan(self.bought, self.histories, self.config.train)
        later = [steps.test.past] * test + [self.histories] * release
        return steps, self._fit_fusion(steps, later)

    def _read(self) -> None:
        self.stage("read the log")
        store = self.shop.store
        self.seq, self.fingerprint = store.last_seq(), store.fingerprint()
        # one moment of the log, however much is recorded meanwhile
        log = store.events().filter(pl.col("seq") <= self.seq)
        self.bought = successes(log)
        if self.bought.height < MIN_EVENTS:
            raise DataError(
                f"There are {self.bought.height} purchases, or acts where purchases are hardly logged; "
                f"{MIN_EVENTS} is the least to learn from.",
                where=str(self.shop.folder),
                next_step=f"Ingest more: endcap ingest EVENTS --shop {self.shop.folder}",
            )
        ids = log.select(pl.col("item_id").drop_nulls().unique()).collect().to_series().to_list()
        self.table = ItemTable.build(store.items(), ids)
        self.histories = Histories.build(log, self.table.ids)
        self._leave_out_idle()
        self.content = self._encode()

    def _leave_out_idle(self) -> None:
        wanted = self.config.train.sources
        found = {source: why for source, why in idle(self.histories, self.table).items() if source in wanted}
        if len(found) < len(wanted):  # a shop that asked for nothing else gets what it asked for
            self._left_out |= found.keys()
            self.notes += [f"The source {source} is left out: {why}." for source, why in found.items()]

    def _encode(self) -> Float32Array | None:
        if "content" not in self.config.train.sources and "sequence" not in self.config.train.sources:
            return None
        from endcap.app.content import content_vectors

        return content_vectors(self.table, self.config, self.shop.folder / "cache", self.stage, self.notes)

    def _fit_fusion(self, steps: Plan, later: Sequence[Histories]) -> Fusion:
        """Steps 1 and 2 of the module."""
        train = self.config.train
        if "sequence" in train.sources:
            checkpoints = self.shop.folder / "checkpoints"
            self._sequences = SequenceFits(
                self.table.ids, self.content, self.config, checkpoints, steps.validation.cases, later
            )
        lasting = self._lasting("fit sources on the training part", steps.lasting)
        parts, fusion = [], Fusion()
        for place, moment in enumerate(steps.examples):
            self.stage("ranker examples", place / len(steps.examples))
            fitted = self._assemble(moment.past, moment.until_ms, lasting)
            pipeline, _ = build_pipeline(fitted, fusion, train.per_source, shown=self._everything())
            if fusion.shortlist is None:
                fusion = Fusion(shortlist=shortlist_for(pipeline, self.histories, moment.cases, train))
                pipeline, _ = build_pipeline(fitted, fusion, train.per_source, shown=self._everything())
            progress = partial(self._share, "ranker examples", place, len(steps.examples))
            parts += examples_at(pipeline, self.histories, moment.cases, train, progress)
        if not parts:
            self.notes.append("No source proposed what was bought next. Candidates are ordered by rank fusion.")
            return fusion
        self.stage("fit the ranker")
        examples = join(parts)
        parts.clear()  # the examples are the largest thing in memory: one copy of them will do
        fused = fuse(examples, pipeline.hydrator.names, self.config, partial(self._share, "fit the ranker", 0, 1))
        self._left_out |= fused.left_out
        self.notes += fused.notes
        return replace(fusion, scorer=fused.scorer)

    def _evaluate(self, test: Stage, fusion: Fusion) -> tuple[Comparison, Pipeline]:
        """Step 3."""
        lasting = self._lasting("fit sources on training and validation", test.past)
        fitted = self._assemble(test.past, test.until_ms, lasting)
        pipeline, _ = build_pipeline(fitted, fusion, self.config.train.per_source, shown=self._everything())
        train = self.config.train
        tasks = {task: found.cases for task, found in test.cases.items()}

        def progress(task: str, share: float) -> None:
            self.stage("measure on the test part", (list(tasks).index(task) + share) / len(tasks))

        comparison = compare(
            fitted, pipeline, self.histories, tasks, seed=train.seed, workers=train.threads, progress=progress
        )
        self.notes += [_behind(comparison, task) for task in tasks if _behind(comparison, task)]
        return comparison, pipeline

    def _fit_all(self, end_ms: int) -> Fitted:
        """Step 4."""
        lasting = self._lasting("fit sources on the whole log", self.histories)
        return self._assemble(self.histories, end_ms, lasting)

    def _lasting(self, stage: str, past: Histories) -> list[CandidateSource]:
        self.stage(stage)
        found = fit_lasting(past, self.table, self.content, self.config)
        if self._sequences is not None and "sequence" not in self._left_out:
            model = "train the sequence model"
            self.stage(model)
            try:
                found.append(self._sequences.fit(past, lambda share: self.stage(model, share)))
            except CallerError as error:
                self.notes.append(f"There is no sequence model: {error}")
                self._sequences = None
        return found

    def _assemble(self, past: Histories, until_ms: int, lasting: Sequence[CandidateSource]) -> Fitted:
        """Everything fitted on events before a moment, the sources in the configured order."""
        fresh = fit_fresh(past, self.table, until_ms, self.config)
        order = self.config.train.sources
        used = [source for source in (*fresh, *lasting) if source.name not in self._left_out]
        sources = sorted(used, key=lambda source: order.index(source.name))
        return Fitted(self.table, ItemStats.build(past, len(self.table), until_ms), tuple(sources), until_ms)

    def _everything(self) -> NDArray[np.bool_]:
        """Stock as it is today says nothing of what could be bought then."""
        return np.ones(len(self.table), np.bool_)

    def _share(self, stage: str, place: int, parts: int, share: float) -> None:
        self.stage(stage, (place + share) / parts)

    def _data(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "seq": self.seq,
            "events": len(self.histories.events),
            "users": len(self.histories),
            "items": len(self.table),
        }


def _behind(comparison: Comparison, task: str) -> str:
    """A warning where one of the parts does measurably better than the whole; else nothing."""
    gap = comparison.gaps(task).get(comparison.headline) if task in comparison.tasks else None
    if gap is None or gap.difference.hi >= 0:
        return ""
    better = -gap.difference.mean
    return f"On {task}, {gap.baseline} alone does better than the whole, by {better:.4f}: look before you publish."
