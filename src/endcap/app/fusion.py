"""How candidates are put in order: by the learned ranker, or by the simple blend where that does as well; and then,
where it helps, by a second look at the first few.

Ranker and blend are tried on users they have not seen, and so is the ranker without each optional source. What was
decided, and by how much, is told in sentences. For the second look see `judging`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from endcap.app.config import Config
from endcap.core.errors import ArtifactError
from endcap.models.blend import Blend, fit_blend, sources_of, try_blend
from endcap.models.crossfit import Examples, Gains, ideal
from endcap.models.judge import OnnxJudge
from endcap.models.ranker import Ranker
from endcap.models.worth import without, worth
from endcap.recommend.candidates import Shortlist
from endcap.recommend.second_look import Weights

if TYPE_CHECKING:
    from endcap.models.ranker_fit import Trial

WEIGHTS = "weights.json"


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A tuned cross-encoder, and how much it weighs beside the ranker."""

    judge: OnnxJudge
    weights: Weights

    def save(self, folder: Path) -> None:
        """Into an existing empty folder."""
        self.judge.save(folder)
        (folder / WEIGHTS).write_bytes(msgspec.json.encode(self.weights))

    @classmethod
    def load(cls, folder: Path) -> Judged | None:
        """None where there is no folder. ArtifactError where something of it cannot be read."""
        if not folder.is_dir():
            return None
        try:
            weights = msgspec.json.decode((folder / WEIGHTS).read_bytes(), type=Weights)
        except (OSError, msgspec.MsgspecError) as error:
            raise ArtifactError(f"What the judge weighs cannot be read: {error}.", where=str(folder)) from error
        return cls(OnnxJudge.load(folder), weights)


@dataclass(frozen=True, slots=True, eq=False)
class Fusion:
    """What a release's candidates are ordered by. scorer, shortlist: None where there is too little to learn from.
    judged: None where no second look is taken. It has a folder of its own; `save` and `load` leave it aside."""

    scorer: Ranker | Blend | None = None
    shortlist: Shortlist | None = None
    judged: Judged | None = None

    def save(self, folder: Path) -> None:
        if self.scorer is not None:
            self.scorer.save(folder)
        if self.shortlist is not None:
            (folder / "shortlist.json").write_bytes(msgspec.json.encode(self.shortlist))

    @classmethod
    def load(cls, folder: Path, names: Sequence[str]) -> Fusion:
        """names: of the features. ArtifactError where the release's are others."""
        scorer: Ranker | Blend | None = None
        if (folder / "blend.json").exists():
            scorer = Blend.load(folder, names)
        elif (folder / "ranker.txt").exists():
            scorer = Ranker.load(folder, names)
        short = folder / "shortlist.json"
        return cls(scorer, msgspec.json.decode(short.read_bytes(), type=Shortlist) if short.exists() else None)


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """left_out: optional sources that showed no use. notes: sentences."""

    scorer: Ranker | Blend | None
    left_out: frozenset[str]
    notes: tuple[str, ...]


def fuse(examples: Examples, names: tuple[str, ...], config: Config, progress: Callable[[float], None]) -> Fused:
    """examples: of past moments, all with a target among the candidates."""
    from endcap.models.ranker_fit import fit_ranker, try_ranker  # LightGBM, which a server need not load

    train, ranker = config.train, config.ranker
    queries, users = len(examples.sizes), len(np.unique(examples.users))
    if queries < ranker.min_blend or users < ranker.folds:
        note = (
            f"Only {queries} past moments, of {users} shoppers, could teach what to weigh; it takes "
            f"{ranker.min_blend}, of {ranker.folds} shoppers or more."
        )
        return Fused(None, frozenset(), (f"{note} Candidates are ordered by rank fusion.",))
    if queries < ranker.min_queries:
        note = f"Only {queries} past moments could teach a ranker; it takes {ranker.min_queries}."
        return Fused(
            fit_blend(examples, names), frozenset(), (f"{note} A blend of the sources' scores orders candidates.",)
        )
    trial = try_ranker(examples, names, ranker, train.seed, train.threads)
    notes, left_out = [], set()
    offered = [source for source in train.optional if f"score_{source}" in names]
    for place, source in enumerate(offered, start=1):
        progress(place / (len(offered) + 2))
        fewer, fewer_names = without(examples, names, source, train.per_source)
        if not fewer.labels.any():
            notes.append(f"The source {source} stays: no other proposes what was bought.")
            continue
        lean = try_ranker(fewer, fewer_names, ranker, train.seed, train.threads)
        verdict = worth(source, trial.gains, lean.gains, examples)
        notes.append(str(verdict))
        if not verdict.stays:
            left_out.add(source)
            trial, examples, names = lean, fewer, fewer_names
    progress((len(offered) + 1) / (len(offered) + 2))
    blended = try_blend(examples, names, ranker.folds, train.seed)
    scorer: Ranker | Blend
    if _mean(trial.gains, examples) > _mean(blended, examples):
        scorer = fit_ranker(examples, names, ranker, trial.trees, train.seed, train.threads)
    else:
        scorer = fit_blend(examples, names)
    return Fused(scorer, frozenset(left_out), (*notes, _told(scorer, trial, blended, examples)))


def learned_from(
    scorer: Ranker | Blend | None, examples: Examples, names: tuple[str, ...], config: Config, part: NDArray[np.bool_]
) -> Ranker | Blend | None:
    """A scorer like the given one, from the same sources, that knows some of the queries only. part: bool [q]."""
    from endcap.models.ranker_fit import fit_ranker

    if scorer is None:
        return None
    some = examples.of(part)
    for source in set(sources_of(names)) - set(sources_of(scorer.names)):
        some, names = without(some, names, source, config.train.per_source)
    if isinstance(scorer, Blend):
        return fit_blend(some, names)
    return fit_ranker(some, names, config.ranker, scorer.trees, config.train.seed, config.train.threads)


def _told(scorer: Ranker | Blend, trial: Trial, blended: Gains, examples: Examples) -> str:
    who = f"A ranker of {trial.trees} trees" if isinstance(scorer, Ranker) else "A blend of the sources' scores"
    ranker, blend = _mean(trial.gains, examples), _mean(blended, examples)
    return (
        f"{who} orders candidates. On users left out whose next item is a candidate, among a sample of the others, "
        f"NDCG@10 is {ranker:.4f} by the ranker, {blend:.4f} by the blend."
    )


def _mean(gains: Gains, examples: Examples) -> float:
    return float((gains / ideal(examples)).mean())
