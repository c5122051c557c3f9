"""Buy again: what a household buys, how often, and whether it is due.

Legend: m distinct items bought by one user.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from pydantic import Field

from endcap.core.section import Section
from endcap.core.types import Context, EventType, Evidence, Float32Array, Int64Array, Reason
from endcap.models.evidence import SILENCE, DenseEvidence, SparseEvidence

DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code
PRIOR_GAPS = 2.0


class BuyAgainConfig(Section):
    half_life_days: float = Field(60.0, gt=0, description="Age at which a purchase counts half.")
    steadiest: float = Field(
        20.0, ge=1, description="Largest shape of an item's gamma rhythm; 1 turns the sense of time off."
    )


class BuyAgain:
    """Decayed frequency times how much likelier than usual a purchase is now.

    Purchases of an item by one user are taken as a renewal process whose gaps follow a gamma distribution (its mean and
    shape estimated from the user's own gaps, the shape drawn towards 1 while they are few). The factor is its hazard at
    the time since the last purchase, times the mean gap: 1 at any time for irregular gaps (shape 1, where frequency
    is all there is to know), near 0 just after and above 1 when due for regular ones.
    """

    name = "buy_again"

    def __init__(self, config: BuyAgainConfig) -> None:
        self.config = config

    def weigh(self, context: Context) -> Evidence:
        if not len(context.bought):
            return SILENCE
        rows = (context.kinds == PURCHASE).nonzero()[0]
        place = context.bought.searchsorted(context.items[rows])
        often = decayed_frequency(context, rows, place, self.config.half_life_days)
        return SparseEvidence(context.bought, often * dueness(context, rows, place, self.config.steadiest))

    def explain(self, context: Context, item: int) -> Reason | None:
        row = int(context.bought.searchsorted(item))
        if row >= len(context.bought) or context.bought[row] != item:
            return None
        times = int(context.bought_n[row])
        span = int(context.bought_last_ms[row] - context.bought_first_ms[row])
        days = round(span / max(1, times - 1) / DAY_MS)
        if times < 3 or days < 2:
            return Reason(self.name, "bought_before", values={"times": times})
        return Reason(self.name, "rhythm", values={"days": days, "times": times})

    def save(self, folder: Path) -> None:
        (folder / "source.json").write_text(json.dumps(self.config.model_dump()))

    @classmethod
    def load(cls, folder: Path) -> BuyAgain:
        _special()  # now, and not in an answer
        return cls(BuyAgainConfig(**json.loads((folder / "source.json").read_text())))


class PersonalFrequency:
    """The baseline to beat: in how many of the user's baskets the item was; equal ones, and what the user never
    bought, in the order of popularity."""

    name = "personal_frequency"

    def __init__(self, popularity: Float32Array) -> None:
        """popularity: float32 [items], 0 or more."""
        self._order = (popularity / (1 + float(popularity.max(initial=0)))).astype(np.float32)

    def weigh(self, context: Context) -> Evidence:
        scores = self._order.copy()
        scores[context.bought] += context.bought_n
        return DenseEvidence(scores)

    def explain(self, context: Context, item: int) -> Reason | None:
        return None

    def save(self, folder: Path) -> None:
        np.save(folder / "order.npy", self._order)


def dueness(context: Context, rows: Int64Array, place: Int64Array, steadiest: float) -> Float32Array:
    """float32 [m]: the gamma hazard at the time since the last purchase, times the mean gap; 1 before two gaps. rows:
    int64 [p], the purchases among the events. place: int64 [p], of each of them among the items bought."""
    if not (np.bincount(place) > 2).any():
        return np.ones(len(context.bought), np.float32)
    order = place.argsort(kind="stable")
    place, ts_ms = place[order], context.ts_ms[rows][order]
    gaps = np.diff(ts_ms) / DAY_MS
    within = (place[1:] == place[:-1]) & (gaps > 0)
    m = len(context.bought)
    n = np.bincount(place[1:][within], minlength=m)
    total = np.bincount(place[1:][within], gaps[within], m)
    squares = np.bincount(place[1:][within], gaps[within] ** 2, m)
    several = n >= 2
    mean = np.where(several, total / np.maximum(n, 1), 1.0)
    variance = np.where(
        several, np.maximum(squares / np.maximum(n, 1) - mean**2, 0) * n / np.maximum(n - 1, 1), mean**2
    )
    shape = np.minimum(mean**2 / np.maximum(variance, mean**2 / steadiest), steadiest)
    shape = np.where(several, (n * shape + PRIOR_GAPS) / (n + PRIOR_GAPS), 1.0)
    since = (context.now_ms - context.bought_last_ms) / DAY_MS
    x, shape = (np.clip(since / mean, 0.01, 3) * shape)[several], shape[several]
    density = np.exp((shape - 1) * np.log(x) - x - _special().gammaln(shape))
    due = np.ones(m, np.float32)
    due[several] = density / np.maximum(_special().gammaincc(shape, x), 1e-12) * shape
    return due


def decayed_frequency(context: Context, rows: Int64Array, place: Int64Array, half_life_days: float) -> Float32Array:
    """float32 [m]: for each bought item the sum over its purchases of .5^(age / half life). rows, place: see
    `dueness`."""
    ages = np.maximum(context.now_ms - context.ts_ms[rows], 0) / DAY_MS
    return np.bincount(place, 0.5 ** (ages / half_life_days), len(context.bought)).astype(np.float32)


@cache
def _special() -> ModuleType:
    """SciPy's special functions, which take longer to import than a store takes to open."""
    from scipy import special

    return special
