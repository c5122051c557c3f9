"""A second look at the first few candidates: a judge reads each beside what the shopper acted on last.

The ranker knows what shoppers did; a judge knows what titles mean. The less a shopper has done, the more that adds, so
its weight may fall with the length of the history. How much it weighs is fitted on validation (`app.judging`).

Legend: n ranked candidates of one shopper, m of them at the top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from endcap.core.errors import ServiceError
from endcap.core.protocols import Judge
from endcap.core.types import Context, Float32Array, Int32Array
from endcap.features.sequences import History

READ = 3  # texts of a history, as in the examples a cross-encoder learns from
Float64Array = NDArray[np.float64]


class Weights(msgspec.Struct, frozen=True):
    """Of the judge beside the ranker's score: always + scarce / (1 + log(1 + acts of the shopper)), and never below 0:
    where it is worth nothing it is not heard, rather than contradicted. top: how many of the first candidates it is
    asked about."""

    top: int = 10
    always: float = 0.0
    scarce: float = 0.0

    def of(self, acts: int) -> float:
        return max(0.0, self.always + self.scarce * scarcity(acts))


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What the judge said. z: float64 [m], standardised, 0 for what has no text. acts: length of the history."""

    z: Float64Array
    acts: int


class SecondLook:
    """Puts the first few candidates into a new order; those behind keep theirs."""

    def __init__(self, judge: Judge, texts: Sequence[str], weights: Weights) -> None:
        """texts: of every item of the catalogue, "" where there is none."""
        self.judge, self.weights, self._texts = judge, weights, list(texts)

    def put(self, place: int, text: str) -> None:
        """Take over what an item is called now."""
        self._texts[place] = text

    def look(
        self, context: Context, items: Int32Array, scores: Float32Array
    ) -> tuple[NDArray[np.int64], Float32Array] | None:
        """(order, scores) of candidates sorted by the ranker's scores, all [n]; None where nothing changes.

        The last of the new top has the score that the last of the old one had, so that scores fall all the way down;
        equal ones stand in the order of the items.
        """
        if self.weights.of(len(acted_on(context))) == 0:
            return None
        m = min(self.weights.top, len(items))
        heard = self.hear(context, items[:m])
        if heard is None:
            return None
        ranked = standardised(scores[:m])
        mixed = ranked + self.weights.of(heard.acts) * heard.z
        first = np.lexsort((items[:m], -mixed))
        unit = float(scores[:m].astype(np.float64).std()) or 1.0
        new = scores.copy()
        new[:m] = scores[m - 1] + unit * (mixed[first] - mixed.min())
        return np.concatenate([first, np.arange(m, len(items))]), new

    def hear(self, context: Context, items: Int32Array) -> Heard | None:
        """What the judge says of items at the top, int32 [m]; None where there is nothing to read or to compare.

        ServiceError where it says what is no number.
        """
        read, candidates = self.read(context, items)
        if not read or len(candidates) < 2:
            return None
        logits = self.judge.judge(read, candidates)
        if logits.shape != (len(candidates),) or not np.isfinite(logits).all():
            raise ServiceError("The judge gave no number for a candidate.", where=type(self.judge).__name__)
        z = np.zeros(len(items))
        z[[place for place, item in enumerate(items.tolist()) if self._texts[item]]] = standardised(logits)
        return Heard(z, len(acted_on(context)))

    def read(self, context: Context, items: Int32Array) -> tuple[list[str], list[str]]:
        """The texts that `hear` shows the judge: the last of the history, oldest first, and those of the items
        that have one."""
        history = [text for item in acted_on(context)[::-1].tolist() if (text := self._texts[item])]
        return history[:READ][::-1], [self._texts[item] for item in items.tolist() if self._texts[item]]


def acted_on(context: Context) -> Int32Array:
    """int32 [any]: items of the acts that count as success, oldest first; what a cross-encoder was taught to read."""
    history = History(context.items, context.kinds, context.ts_ms, context.baskets)
    return context.items[history.successes()]


def scarcity(acts: int) -> float:
    """1 without any act, falling slowly: .59 after one, .42 after three, .31 after eight."""
    return 1 / (1 + math.log1p(acts))


def standardised(values: Float32Array) -> Float64Array:
    """float64 [m]: mean 0, standard deviation 1; all 0 where the values are equal."""
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    spread = float(centred.std())
    return centred / spread if spread > 1e-12 else np.zeros_like(centred)
