"""Which rows of the training part are read together, pass by pass.

Dimension legend: n rows, b rows of a batch.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from endcap.core.determinism import rng
from endcap.core.types import Int64Array
from endcap.models import distributed
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import group_codes
from endcap.models.judge import JOINED

Rows = list[int]
POOL = 50  # batches whose rows are sorted by length together


class Batches:
    """Rows by lot. Of `ranking`, a group is never parted by the end of a batch, nor among processes; of `pairs`, rows
    of a group follow each other, whose texts are read once for many. Of the other tasks, rows of like length do."""

    def __init__(self, frame: pl.DataFrame, config: FinetuneConfig) -> None:
        kind = config.task.kind
        self.groups = group_codes(frame)
        self._config, self._whole = config.train, kind == "ranking"
        self._together = self._whole or (kind == "pairs" and "group" in frame.columns)
        self._lengths: Int64Array | None = None  # texts of like length would be too easy negatives
        if kind not in ("ranking", "pairs"):
            texts = frame["anchor"].list.join(JOINED) if kind == "interest" else frame["text"]
            self._lengths = texts.str.len_chars().to_numpy()

    def of_pass(self, number: int) -> list[Rows]:
        """This process's rows of each batch, by length. All processes have as many rows, or groups, of each, so a
        remainder that cannot be shared is left out of this pass."""
        order = self._order(number)
        starts, end, cuts = self._cuts(order)
        owner = np.searchsorted(starts, np.arange(end), side="right") - 1
        mine = owner % distributed.processes() == distributed.rank()
        return [order[places[mine[places]]].tolist() for places in np.split(np.arange(end), cuts)]

    def count(self, number: int) -> int:
        """How many batches a pass has."""
        order = self._order(number) if self._whole else np.arange(len(self.groups))
        return len(self._cuts(order)[2]) + 1

    def units(self, rows: Int64Array) -> Int64Array:
        """A number for what is not to be parted: a row, or its group."""
        return self.groups[rows] if self._whole else np.arange(len(rows))

    def _order(self, number: int) -> Int64Array:
        draw = rng(self._config.seed, f"order {number}")
        if self._together:
            return np.argsort(draw.permutation(int(self.groups.max()) + 1)[self.groups], kind="stable")
        order = draw.permutation(len(self.groups))
        if self._lengths is None:
            return order
        pool = POOL * self._config.batch_size
        parts = [order[start : start + pool] for start in range(0, len(order), pool)]
        return np.concatenate([part[np.argsort(self._lengths[part], kind="stable")] for part in parts])

    def _cuts(self, order: Int64Array) -> tuple[Int64Array, int, Int64Array]:
        """Where units begin in the order, where what can be shared ends, and where batches after the first begin."""
        processes = distributed.processes()
        starts = np.unique(self.units(order), return_index=True)[1]
        starts.sort()
        shared = len(starts) // processes * processes
        end = int(starts[shared]) if shared < len(starts) else len(order)
        size = self._config.batch_size * processes
        allowed = starts[processes:shared:processes]
        wanted = np.searchsorted(allowed, np.arange(size, end, size))
        return starts, end, np.unique(allowed[wanted[wanted < len(allowed)]])
