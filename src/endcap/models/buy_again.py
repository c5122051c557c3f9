"""Buy again: what a household buys, how often, and whether it is due.

Legend: m distinct items bought by one user.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydantic import Field

from endcap.core.section import Section
from endcap.core.types import Context, EventType, Evidence, Float32Array, Reason
from endcap.models.evidence import SILENCE, SparseEvidence

DAY_MS = 86_400_000
PURCHASE = EventType.PURCHASE.code


class BuyAgainConfig(Section):
    half_life_days: float = Field(60.0, gt=0, description="Age at which a purchase counts half.")


class BuyAgain:
    """Decayed frequency: each basket with the item adds .5^(age / half life)."""

    name = "buy_again"

    def __init__(self, config: BuyAgainConfig) -> None:
        self.half_life_days = config.half_life_days

    def weigh(self, context: Context) -> Evidence:
        if not len(context.bought):
            return SILENCE
        return SparseEvidence(context.bought, decayed_frequency(context, self.half_life_days))

    def explain(self, context: Context, item: int) -> Reason | None:
        row = int(np.searchsorted(context.bought, item))
        if row >= len(context.bought) or context.bought[row] != item:
            return None
        times = int(context.bought_n[row])
        if times < 3:
            return Reason(self.name, "bought_before", values={"times": times})
        span = int(context.bought_last_ms[row] - context.bought_first_ms[row])
        return Reason(self.name, "rhythm", values={"days": max(1, round(span / (times - 1) / DAY_MS)), "times": times})

    def save(self, folder: Path) -> None:
        (folder / "source.json").write_text(json.dumps({"half_life_days": self.half_life_days}))

    @classmethod
    def load(cls, folder: Path) -> BuyAgain:
        return cls(BuyAgainConfig(**json.loads((folder / "source.json").read_text())))


class PersonalFrequency:
    """The baseline to beat: in how many of the user's baskets the item was, the newest first among equals."""

    name = "personal_frequency"

    def weigh(self, context: Context) -> Evidence:
        if not len(context.bought):
            return SILENCE
        age_days = np.maximum(context.now_ms - context.bought_last_ms, 0) / DAY_MS
        return SparseEvidence(context.bought, (context.bought_n + 0.5 / (1 + age_days)).astype(np.float32))

    def explain(self, context: Context, item: int) -> Reason | None:
        return None

    def save(self, folder: Path) -> None:
        (folder / "source.json").write_text("{}")


def decayed_frequency(context: Context, half_life_days: float) -> Float32Array:
    """float32 [m]: for each bought item the sum over its purchases of .5^(age / half life)."""
    rows = context.kinds == PURCHASE
    ages = np.maximum(context.now_ms - context.ts_ms[rows], 0) / DAY_MS
    places = np.searchsorted(context.bought, context.items[rows])
    return np.bincount(places, 0.5 ** (ages / half_life_days), len(context.bought)).astype(np.float32)
