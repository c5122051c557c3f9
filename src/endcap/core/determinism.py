"""The one seed and the one clock."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable

import numpy as np

Clock = Callable[[], int]


def system_clock() -> int:
    """UTC milliseconds."""
    return time.time_ns() // 1_000_000


def rng(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that adding one use does not shift the others."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def seed_everything(seed: int) -> None:
    """Seed the global generators that libraries draw from. Torch is seeded by the training loop."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
