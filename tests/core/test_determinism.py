"""The one seed and the one clock."""

from __future__ import annotations

import random
import time

import numpy as np

from endcap.core.determinism import rng, seed_everything, system_clock


def test_the_same_seed_and_purpose_draw_the_same() -> None:
    assert rng(1, "split").integers(1_000_000, size=5).tolist() == rng(1, "split").integers(1_000_000, size=5).tolist()


def test_seeds_and_purposes_are_independent() -> None:
    draws = {tuple(rng(seed, why).integers(1_000_000, size=5)) for seed in (0, 1) for why in ("split", "sample")}
    assert len(draws) == 4


def test_the_global_generators_are_seeded() -> None:
    seed_everything(5)
    first = (random.random(), float(np.random.random()))
    seed_everything(5)
    assert (random.random(), float(np.random.random())) == first
    seed_everything(2**32 + 5)  # larger than numpy takes
    assert float(np.random.random()) == first[1]


def test_the_clock_is_in_utc_milliseconds() -> None:
    before = int(time.time() * 1000)
    assert before <= system_clock() <= int(time.time() * 1000) + 1
