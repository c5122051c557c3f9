"""Training: sources fitted on the past, a ranker fitted on what came next, both measured on what came after that.

The log is split by time, 6:2:2 by default (see `plans` for the other way).
    1. Lasting sources are fitted on the training part.
    2. At several moments of the validation part, fresh sources are fitted on everything before the moment, and each
       user's first basket after it gives examples. The ranker learns from these alone, so it never sees a source
       score an event the source was fitted on. Where a blend of scores does as well, it takes the ranker's place.
       Where a cross-encoder is named, it is tried on the same cases, and stays where it helps (see `judging`).
    3. All sources are fitted again on training and validation, and everything is measured once on the test part.
    4. For the release all sources are fitted on the whole log, with the ranker as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from endcap.app import judging
from endcap.app.content import Content, fit_content
from endcap.app.evaluation import compare, users_per_second
from endcap.app.examples import examples_at, join, shortlist_for
from endcap.app.fusion import Fusion, fuse, learned_from
from endcap.app.ingest import Progress
from endcap.app.plans import Plan, Stage, plan
from endcap.app.publish import build_pipeline, write_release
from endcap.app.run import Run
from endcap.app.sequences import SequenceFits
from endcap.app.sources import Fitted, fit_lasting
from endcap.app.tasks import of_some_users
from endcap.core.artifacts import Manifest
from endcap.core.determinism import seed_everything
from endcap.core.errors import CallerError
from endcap.core.protocols import CandidateSource
from endcap.evaluate.report import Comparison
from endcap.features.sequences import Histories
from endcap.models.crossfit import Examples
from endcap.recommend.candidates import Shortlist
from endcap.recommend.pipeline import Pipeline

if TYPE_CHECKING:
    from endcap.app.runtime import Shop


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
    return Training(shop, progress).run(evaluate)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A training that stopped at the test. users_per_second: ranked, through all sources and the ranker."""

    comparison: Comparison
    notes: tuple[str, ...]
    seconds: dict[str, float]
    users_per_second: float


def measure(shop: Shop, *, progress: Progress) -> Measured:
    """What `train` would publish, measured, without the release."""
    return Training(shop, progress).measure()


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """What there is to learn from: how many past moments, examples of them (None where no source proposed what was
    bought), the names of their features, and what shortened their candidates. lasting: the slow sources, kept where a
    judge is to be tried on the same cases."""

    moments: int
    examples: Examples | None
    names: tuple[str, ...]
    shortlist: Shortlist | None
    lasting: tuple[CandidateSource, ...] = ()


class Training(Run):
    """From the log to a release; `train` and `measure` go all the way."""

    _sequences: SequenceFits | None = None

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
            content=self.content,
            notes=self.notes,
            config=self.config,
            data=self.about(),
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
        task, asked = next(iter(of_some_users(steps.test.cases, self.config.train.measured)[0].items()))
        speed = users_per_second(pipeline, self.histories, task, asked.cases, workers=self.config.train.threads)
        return Measured(comparison, tuple(self.notes), self.seconds, speed)

    def _learn(self, *, test: bool, release: bool) -> tuple[Plan, Fusion]:
        """All that comes before the test part is looked at."""
        steps = self.prepare(test=test, release=release)
        taught = self.teach(steps)
        return steps, self.judge(steps, taught, self.fuse(taught))

    def prepare(self, *, test: bool, release: bool) -> Plan:
        """The log and what will be asked of it. test, release: what sources will be fitted for, after the examples."""
        seed_everything(self.config.train.seed)
        if self.config.judge.model:
            judging.check(self._run_to_judge())
        self.read()
        self.leave_out_idle()
        steps = plan(self.bought, self.histories, self.config.train)
        self.content = self._read_items(steps.lasting)
        if "sequence" in self.config.train.sources:
            later = [steps.test.past] * test + [self.histories] * release
            checkpoints = self.shop.folder / "checkpoints"
            self._sequences = SequenceFits(
                self.table.ids, self.content, self.config, checkpoints, steps.validation.cases, later
            )
        return steps

    def _read_items(self, taken: Histories) -> Content | None:
        """Of items, what any source reads; what belongs together is learned from what was taken."""
        if not self.reads_content(self.config.train.sources):
            return None
        return fit_content(self.table, self.config, self.shop.folder, self.stage, self.notes, taken)

    def teach(self, steps: Plan) -> Taught:
        """Step 1 of the module, and the examples of step 2."""
        train = self.config.train
        lasting = self._lasting("fit sources on the training part", steps.lasting)
        parts, fusion = [], Fusion()
        for place, moment in enumerate(steps.examples):
            self.stage("ranker examples", place / len(steps.examples))
            fitted = self.assemble(moment.past, moment.until_ms, lasting)
            pipeline, _ = build_pipeline(fitted, fusion, train.per_source, shown=self._everything())
            if fusion.shortlist is None:
                fusion = Fusion(shortlist=shortlist_for(pipeline, self.histories, moment.cases, train))
                pipeline, _ = build_pipeline(fitted, fusion, train.per_source, shown=self._everything())
            progress = partial(self.share, "ranker examples", place, len(steps.examples))
            parts += examples_at(pipeline, self.histories, moment.cases, train, progress)
        asked = sum(len(cases) for moment in steps.examples for cases in moment.cases.values())
        kept = tuple(lasting) if self.config.judge.model else ()
        return Taught(asked, join(parts) if parts else None, pipeline.hydrator.names, fusion.shortlist, kept)

    def fuse(self, taught: Taught) -> Fusion:
        """The rest of step 2."""
        if taught.examples is None:
            why = "No source proposed what was bought next" if taught.moments else "Nobody did anything to learn from"
            self.notes.append(f"{why} in the validation part. Candidates are ordered by rank fusion.")
            return Fusion(shortlist=taught.shortlist)
        self.stage("fit the ranker")
        fused = fuse(taught.examples, taught.names, self.config, partial(self.share, "fit the ranker", 0, 1))
        self.left_out |= fused.left_out
        self.notes += fused.notes
        return Fusion(fused.scorer, taught.shortlist)

    def judge(self, steps: Plan, taught: Taught, fusion: Fusion) -> Fusion:
        """The fusion with the cross-encoder that the settings name, where it helps."""
        found = self.try_judge(steps, taught, fusion) if self.config.judge.model else None
        if found is None:
            return fusion
        self.notes += found.notes
        return replace(fusion, judged=found.kept)

    def try_judge(self, steps: Plan, taught: Taught, fusion: Fusion) -> judging.Found | None:
        """What it is worth beside the ranker; None where there was nothing to teach a ranker either."""
        if taught.examples is None:
            return None
        stage = "try the cross-encoder"
        self.stage(stage)
        half = judging.halves(len(self.histories), self.config.train.seed)
        return judging.judge_by(
            self._run_to_judge(),
            self._tops(steps, taught, fusion, half),
            self.table.texts(),
            half,
            self.config,
            partial(self.share, stage, 0, 1),
        )

    def _tops(
        self, steps: Plan, taught: Taught, fusion: Fusion, half: NDArray[np.int64]
    ) -> Iterator[list[judging.Top]]:
        """The first candidates at each moment, each half of the shoppers ranked by what the other taught."""
        assert taught.examples is not None
        parts = [half[taught.examples.users] != number for number in range(judging.HALVES)]
        if not all(part.any() for part in parts):
            return
        fusions = [
            replace(fusion, scorer=learned_from(fusion.scorer, taught.examples, taught.names, self.config, part))
            for part in parts
        ]
        wanted = -(-self.config.judge.examples // len(steps.examples))
        for moment in steps.examples:
            fitted = self.assemble(moment.past, moment.until_ms, taught.lasting)
            pipelines = [
                build_pipeline(fitted, one, self.config.train.per_source, shown=self._everything())[0]
                for one in fusions
            ]
            yield judging.first_few(pipelines, half, self.histories, moment.cases, self.config, wanted)

    def _run_to_judge(self) -> Path:
        return self.shop.folder / self.config.judge.model

    def fit_at(self, stage: Stage) -> Fitted:
        """Step 3: all sources on what was known then."""
        lasting = self._lasting("fit sources on training and validation", stage.past)
        return self.assemble(stage.past, stage.until_ms, lasting)

    def _evaluate(self, test: Stage, fusion: Fusion) -> tuple[Comparison, Pipeline]:
        """Step 3."""
        fitted = self.fit_at(test)
        pipeline, _ = build_pipeline(fitted, fusion, self.config.train.per_source, shown=self._everything())
        train = self.config.train
        some, left_out = of_some_users(test.cases, train.measured)
        tasks = {task: found.cases for task, found in some.items()}

        def progress(task: str, share: float) -> None:
            self.stage("measure on the test part", (list(tasks).index(task) + share) / len(tasks))

        comparison = compare(
            fitted, pipeline, self.histories, tasks, seed=train.seed, workers=train.threads, progress=progress
        )
        self.notes += [note for note in (left_out, *(_behind(comparison, task) for task in tasks)) if note]
        return comparison, pipeline

    def _fit_all(self, end_ms: int) -> Fitted:
        """Step 4."""
        lasting = self._lasting("fit sources on the whole log", self.histories)
        return self.assemble(self.histories, end_ms, lasting)

    def _lasting(self, stage: str, past: Histories) -> list[CandidateSource]:
        self.stage(stage)
        wanted = set(self.config.train.sources) - self.left_out
        vectors = None if self.content is None else self.content.vectors
        found = fit_lasting(past, self.table, vectors, self.config, wanted)
        if self._sequences is not None and "sequence" not in self.left_out:
            model = "train the sequence model"
            self.stage(model)
            try:
                found.append(self._sequences.fit(past, lambda share: self.stage(model, share)))
            except CallerError as error:
                self.notes.append(f"There is no sequence model: {error}")
                self._sequences = None
        return found

    def _everything(self) -> NDArray[np.bool_]:
        """Stock as it is today says nothing of what could be bought then."""
        return np.ones(len(self.table), np.bool_)


def _behind(comparison: Comparison, task: str) -> str:
    """A warning where one of the parts does measurably better than the whole; else nothing."""
    gap = comparison.gaps(task).get(comparison.headline) if task in comparison.tasks else None
    if gap is None or gap.difference.hi >= 0:
        return ""
    better = -gap.difference.mean
    return f"On {task}, {gap.baseline} alone does better than the whole, by {better:.4f}: look before you publish."
