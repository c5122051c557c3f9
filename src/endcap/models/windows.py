"""Sequences as one flat array, and the training windows and batches cut from it. No torch here.

Dimension legend: b windows of a batch, l positions.

A history of n events holds n - 1 transitions (from an event to the next). Windows are runs of at most `max_len`
transitions; each transition of each history is in exactly one window of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from endcap.core.errors import CallerError
from endcap.core.types import Int32Array, Int64Array

PADDING = -1
BATCHES_PER_BUCKET = 20  # how many batches are sorted by length together: less padding, still well mixed


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Every user's events, oldest first: user u's are items[offsets[u]:offsets[u + 1]].

    items: int32 [events], catalogue positions. offsets: int64 [users + 1]. groups: int64 [events] or None; equal
    neighbouring values within a user mark events whose order among themselves says nothing, such as one basket.
    """

    items: Int32Array
    offsets: Int64Array
    groups: Int64Array | None = None

    def __post_init__(self) -> None:
        if len(self.offsets) < 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise CallerError(
                f"Offsets must run from 0 to the number of events, {len(self.items):,}.",
                where="Sequences",
                next_step="Give offsets with one more entry than there are users.",
            )
        if np.any(np.diff(self.offsets) < 0) or (self.groups is not None and len(self.groups) != len(self.items)):
            raise CallerError(
                "Offsets must not decrease, and groups, where given, need one entry for each event.",
                where="Sequences",
                next_step="Build items, offsets and groups from the same sorted table.",
            )
        if len(self.items) and self.items.min() < 0:
            raise CallerError(
                "Items must be catalogue positions from 0.",
                where="Sequences",
                next_step="Drop events of unknown items before building histories.",
            )

    @property
    def users(self) -> int:
        return len(self.offsets) - 1

    def select(self, users: Int64Array) -> Sequences:
        """Those of the given users, int64 [m], in that order."""
        lengths = np.diff(self.offsets)[users]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], lengths)
        return Sequences(self.items[events], offsets, None if self.groups is None else self.groups[events])

    def last(self, length: int) -> Int64Array:
        """int64 [users, length]: each user's newest `length` items, padded on the right with PADDING."""
        ends = self.offsets[1:]
        starts = np.maximum(self.offsets[:-1], ends - length)
        return gather(self.items, starts, ends - starts, length)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """inputs, targets: int64 [b, l], PADDING on the right; targets[:, i] is the item after inputs[:, i]."""

    inputs: Int64Array
    targets: Int64Array


class EpochBatches:
    """The batches of one epoch: windows cut and mixed anew by `rng`, those of like length together."""

    def __init__(self, histories: Sequences, max_len: int, batch_size: int, rng: np.random.Generator) -> None:
        self._items = histories.items if histories.groups is None else reorder_groups(histories, rng)
        self._starts, self._lengths = cut_windows(histories.offsets, max_len, rng)
        self._chosen = _mix(self._lengths, batch_size, rng)

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Batch]:
        for windows in self._chosen:
            starts, lengths = self._starts[windows], self._lengths[windows]
            longest = int(lengths.max())
            yield Batch(
                gather(self._items, starts, lengths, longest), gather(self._items, starts + 1, lengths, longest)
            )


def cut_windows(offsets: Int64Array, max_len: int, rng: np.random.Generator) -> tuple[Int64Array, Int64Array]:
    """First event and number of transitions of each window: int64 [windows] each.

    A history longer than one window is cut at places drawn anew each time, so that no item is always seen with the
    short past of a window's start.
    """
    transitions = np.maximum(np.diff(offsets) - 1, 0)
    first = np.where(transitions > max_len, rng.integers(1, max_len + 1, len(transitions)), max_len)
    counts = np.where(transitions > 0, 1 + np.maximum(-(-(transitions - first) // max_len), 0), 0)
    user = np.repeat(np.arange(len(transitions)), counts)
    place = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.where(place == 0, 0, first[user] + (place - 1) * max_len)
    end = np.minimum(first[user] + place * max_len, transitions[user])
    return offsets[user] + begin, end - begin


def reorder_groups(histories: Sequences, rng: np.random.Generator) -> Int32Array:
    """The items with each run of equal groups, within a user, in a fresh random order."""
    if histories.groups is None or len(histories.items) == 0:
        return histories.items
    fresh = np.empty(len(histories.items), dtype=bool)
    fresh[0] = True
    fresh[1:] = histories.groups[1:] != histories.groups[:-1]
    starts = histories.offsets[:-1]
    fresh[starts[starts < len(fresh)]] = True
    return histories.items[np.argsort(np.cumsum(fresh) + rng.random(len(fresh)))]


def gather(items: Int32Array, starts: Int64Array, lengths: Int64Array, width: int) -> Int64Array:
    """int64 [b, width]: items[starts[i]:starts[i] + lengths[i]] in row i, then PADDING."""
    if len(items) == 0:
        return np.full((len(starts), width), PADDING, dtype=np.int64)
    steps = np.arange(width)
    places = np.minimum(starts[:, None] + steps, len(items) - 1)
    return np.where(steps < lengths[:, None], items[places], PADDING).astype(np.int64)


def _mix(lengths: Int64Array, batch_size: int, rng: np.random.Generator) -> list[Int64Array]:
    """Batches of window numbers: shuffled, sorted by length within buckets, batches shuffled again."""
    order = rng.permutation(len(lengths))
    bucket = batch_size * BATCHES_PER_BUCKET
    batches: list[Int64Array] = []
    for start in range(0, len(order), bucket):
        part = order[start : start + bucket]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches.extend(part[i : i + batch_size] for i in range(0, len(part), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]
