"""Leave-one-out as Endcap's own benchmark has it, for systems that live in environments of their own: numpy only.

A folder holds `sequences.txt`, a line a user: `user item item …`, oldest first. The last item is the test target, the
one before it the validation target. A user with two items has a test target alone, one with one item has none; each
keeps one item at least to learn from. All items of the stage's past are ranked, and a target that is not among them
is not found. Ties count against the model. The headline hides the user's own history, and leaves out a
target that is in it; the `_unfiltered` figures hide nothing.

Legend: u users, i items of the whole log, q users who are asked about, b users of one batch.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
# Users, as positions int64 [b], to the scores float32 [b, i] of all items, from what the model learned of them.
Score = Callable[[Int64Array], Float32Array]

K = 10
BATCH = 256
RESAMPLES = 1000
HIDDEN = np.float32(-np.inf)
NOWHERE = np.iinfo(np.int64).max // 2


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """users, items: their names, in the order of the file. sequences: int32 [n] a user, oldest first."""

    users: tuple[str, ...]
    items: tuple[str, ...]
    sequences: tuple[Int32Array, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """past: int32 [n ≥ 1] a user, all that may be learned from. asked: int64 [q], positions of users. targets:
    int32 [q], what each did next. known: bool [i], the items of the past, which are the ones to rank."""

    past: tuple[Int32Array, ...]
    asked: Int64Array
    targets: Int32Array
    known: NDArray[np.bool_]

    def pairs(self) -> tuple[Int64Array, Int32Array]:
        """Every act of the past in order: its user int64 [n], its item int32 [n]."""
        return np.repeat(np.arange(len(self.past)), [len(one) for one in self.past]), np.concatenate(self.past)


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """filtered, unfiltered: int64 [q], 1-based places of the targets; NOWHERE of one that is not known. new: bool [q],
    the target is not in the user's history, so its filtered place counts. users_per_second: scored, own history hidden,
    best ten found."""

    filtered: Int64Array
    unfiltered: Int64Array
    new: NDArray[np.bool_]
    users_per_second: float

    def values(self) -> dict[str, Float64Array]:
        """`ndcg@10`, `recall@10` and the same `_unfiltered`: one value a user who counts."""
        kept = {"": self.filtered[self.new], "_unfiltered": self.unfiltered}
        gains = {suffix: np.where(ranks <= K, 1 / np.log2(ranks + 1), 0.0) for suffix, ranks in kept.items()}
        hits = {suffix: (ranks <= K).astype(np.float64) for suffix, ranks in kept.items()}
        return {f"ndcg@{K}{suffix}": gains[suffix] for suffix in kept} | {
            f"recall@{K}{suffix}": hits[suffix] for suffix in kept
        }

    @property
    def ndcg(self) -> float:
        """The headline: what settings are chosen by."""
        return float(self.values()[f"ndcg@{K}"].mean())


def read(folder: Path) -> Log:
    """Lines that are blank are passed over. ValueError names one that is not `user item …`, or that repeats a user."""
    path = folder / "sequences.txt"
    places: dict[str, int] = {}
    sequences: dict[str, Int32Array] = {}
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if not line.strip():
            continue
        user, *items = line.decode("utf-8").split()
        if not items or user in sequences:
            raise ValueError(f"{path}:{number}: not `user item item …` of a user who has no line yet.")
        sequences[user] = np.array([places.setdefault(item, len(places)) for item in items], np.int32)
    if not sequences:
        raise ValueError(f"{path}: the file is empty.")
    return Log(tuple(sequences), tuple(places), tuple(sequences.values()))


def validation(log: Log) -> Stage:
    """Learn from all but the last two, be asked for the one before last."""
    return _held_out(log, 2)


def test(log: Log) -> Stage:
    """Learn from all but the last, be asked for the last."""
    return _held_out(log, 1)


def rank(stage: Stage, score: Score, batch: int = BATCH) -> Ranks:
    """Where the targets stand: one plus the other items that score as much or more. FloatingPointError for NaN,
    ValueError where nobody is asked."""
    if not len(stage.asked):
        raise ValueError("No line is long enough to be asked about. Give it users with three items or more.")
    filtered, unfiltered, new = [], [], []
    seconds = 0.0
    for users, targets in _batches(stage, batch):
        started = time.perf_counter()
        scores = score(users)
        seconds += time.perf_counter() - started
        if scores.shape != (len(users), len(stage.known)):
            raise ValueError(f"Scores of shape {scores.shape} for {len(users)} users.")
        if np.isnan(scores).any():
            raise FloatingPointError("There is NaN among the scores.")
        wanted = scores[np.arange(len(users)), targets]
        reachable = stage.known[targets]
        everywhere = np.where(reachable, (scores[:, stage.known] >= wanted[:, None]).sum(axis=1), NOWHERE)
        own = [np.unique(stage.past[user]) for user in users]
        above = [
            np.count_nonzero(row[items] >= want) if known else 0
            for row, items, want, known in zip(scores, own, wanted, reachable, strict=True)
        ]
        unfiltered.append(everywhere)
        filtered.append(everywhere - np.array(above, np.int64))
        new.append(~np.array([target in items for target, items in zip(targets, own, strict=True)], np.bool_))
        started = time.perf_counter()
        best(scores, own, stage.known)
        seconds += time.perf_counter() - started
    return Ranks(np.concatenate(filtered), np.concatenate(unfiltered), np.concatenate(new), len(stage.asked) / seconds)


def best(scores: Float32Array, hidden: list[Int32Array], known: NDArray[np.bool_]) -> Int64Array:
    """The ten best items a row, best first: int64 [b, 10] from scores [b, i], less `hidden` (a row's own) and what is
    not `known` (bool [i]). Fewer where there are fewer items."""
    shown = np.where(known, scores, HIDDEN)
    rows = np.repeat(np.arange(len(hidden)), [len(items) for items in hidden])
    shown[rows, np.concatenate(hidden)] = HIDDEN
    k = min(K, shown.shape[1])
    top = np.argpartition(-shown, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(shown, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def figures(values: Mapping[str, Float64Array], seed: int) -> dict[str, float]:
    """Each metric's mean over users, with `_lo` and `_hi`: the 95 % percentile bootstrap over users."""
    flat: dict[str, float] = {}
    for metric, vector in values.items():
        draw = np.random.default_rng(seed)
        means = [vector[draw.integers(0, len(vector), len(vector))].mean() for _ in range(RESAMPLES)]
        lo, hi = np.quantile(means, (0.025, 0.975))
        flat |= {metric: float(vector.mean()), f"{metric}_lo": float(lo), f"{metric}_hi": float(hi)}
    return flat


def _held_out(log: Log, from_end: int) -> Stage:
    past = tuple(sequence[: max(1, len(sequence) - from_end)] for sequence in log.sequences)
    asked = [user for user, sequence in enumerate(log.sequences) if len(sequence) > from_end]
    targets = np.array([log.sequences[user][-from_end] for user in asked], np.int32)
    known = np.zeros(len(log.items), np.bool_)
    known[np.concatenate(past)] = True
    return Stage(past, np.array(asked, np.int64), targets, known)


def _batches(stage: Stage, size: int) -> Iterator[tuple[Int64Array, Int32Array]]:
    for start in range(0, len(stage.asked), size):
        yield stage.asked[start : start + size], stage.targets[start : start + size]
