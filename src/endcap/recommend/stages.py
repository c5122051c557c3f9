"""What one answer spends where, and what it can still afford.

A shop shows its page with or without us, so an answer has a budget. Nothing that runs is interrupted: before each part
that costs time, what it usually takes is held against what is left, and a part that does not fit gives way to its
fallback.
"""

from __future__ import annotations

import math
from time import perf_counter

LEARNING = 0.05  # share of the newest measurement in what is expected
FORGIVING = 0.98  # what is left out is expected to be this much faster next time, so that it is tried again


class Costs:
    """Seconds that parts of the path usually take, by name: a moving mean. Shared by all answers of a pipeline; a lost
    update between threads costs nothing but that update."""

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}

    def expected(self, name: str) -> float:
        """0 for what has not run yet: it is tried."""
        return self._mean.get(name, 0.0)

    def learn(self, name: str, seconds: float) -> None:
        mean = self._mean.get(name, 0.0)  # from 0 on: the first, when all is cold, says little
        self._mean[name] = mean + LEARNING * (seconds - mean)

    def forgive(self, name: str) -> None:
        self._mean[name] = FORGIVING * self.expected(name)


class Stages:
    """The stopwatch of one answer. seconds: spent so far in each stage that is done."""

    __slots__ = ("_began", "_last", "budget_s", "costs", "seconds")

    def __init__(self, costs: Costs | None = None, budget_s: float = math.inf) -> None:
        self.seconds: dict[str, float] = {}
        self.costs, self.budget_s = costs or Costs(), budget_s
        self._began = self._last = perf_counter()

    def done(self, stage: str) -> float:
        """What went by since the last stage was done is this one's; returns it."""
        now = perf_counter()
        spent, self._last = now - self._last, now
        self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        return spent

    def within(self, stage: str, seconds: float) -> None:
        """So much of the stage that is going on belongs to another."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._last += seconds

    def affords(self, name: str, *later: str, times: int = 1) -> bool:
        """Whether there is time for a part and for those that must follow; one that is refused is forgiven a little.
        times: of how many answers that are made together."""
        if self.budget_s == math.inf:
            return True
        left = self.budget_s - (perf_counter() - self._began)
        if left > 0 and left >= times * sum(map(self.costs.expected, (name, *later))):
            return True
        self.costs.forgive(name)
        return False
