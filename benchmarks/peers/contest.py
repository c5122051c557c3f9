"""What a peer's script does around its model: tune on validation, fit again with the best settings, test once, report.

    python -m benchmarks.peers.<script> FOLDER OUT.json --seed N --budget-minutes M

OUT.json has `figures` (flat: name -> number) and `details` (settings, every trial and what else the script has to
tell). Runs in the peer's environment, with numpy and what that brings.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import protocol
from benchmarks.peers.protocol import Ranks, Score, Stage

Settings = dict[str, Any]
# The model of one stage, with these settings and this seed.
Fit = Callable[[Stage, Settings, int], Score]
MINUTES = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line. seconds: what tuning may take."""

    folder: Path
    out: Path
    seed: int
    seconds: float


def arguments(minutes: float = MINUTES) -> Asked:
    """minutes: the budget for tuning where none is given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="folder with sequences.txt")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget-minutes", type=float, default=minutes, help="how long tuning may take")
    found = parser.parse_args()
    return Asked(found.folder, found.out, found.seed, found.budget_minutes * 60)


def compete(fit: Fit, choices: Mapping[str, Sequence[Any]]) -> None:
    """The whole script of a peer. choices: setting -> its values; the grid of all of them is searched."""
    asked = arguments()
    log = protocol.read(asked.folder)
    started = time.monotonic()
    trials = search(protocol.validation(log), fit, choices, seed=asked.seed, seconds=asked.seconds)
    tuned = time.monotonic()
    best = max(trials, key=lambda trial: trial["ndcg@10"])
    stage = protocol.test(log)
    refitted = time.monotonic()
    score = fit(stage, best["settings"], asked.seed)
    seconds = {"seconds_tuning": tuned - started, "seconds_fit": time.monotonic() - refitted}
    report(asked, protocol.rank(stage, score), seconds, {"settings": best["settings"], "trials": trials})


def search(
    stage: Stage, fit: Fit, choices: Mapping[str, Sequence[Any]], *, seed: int, seconds: float
) -> list[dict[str, Any]]:
    """The grid in random order, until it is done or the next trial might not end in time: one at least."""
    grid = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    random.Random(seed).shuffle(grid)
    started, slowest = time.monotonic(), 0.0
    trials: list[dict[str, Any]] = []
    for settings in grid:
        begun = time.monotonic()
        if trials and begun - started + slowest > seconds:
            break
        try:
            ndcg = protocol.rank(stage, fit(stage, settings, seed)).ndcg
        except FloatingPointError as error:  # of these settings; the others may be sound
            print(f"no figure with {settings}: {error}", flush=True)
            ndcg = 0.0
        taken = time.monotonic() - begun
        slowest = max(slowest, taken)
        trials.append({"settings": settings, "ndcg@10": round(ndcg, 5), "seconds": round(taken, 1)})
        print(f"trial {len(trials)} of {len(grid)}: ndcg@10 {ndcg:.4f} in {taken:.1f} s with {settings}", flush=True)
    return trials


def report(asked: Asked, ranks: Ranks, seconds: Mapping[str, float], details: Mapping[str, Any]) -> None:
    """Write OUT.json. seconds: what took how long, among the figures."""
    values = ranks.values()
    figures = protocol.figures(values, asked.seed) | dict(seconds)
    figures["queries"], figures["queries_unfiltered"] = (len(values[f"ndcg@10{of}"]) for of in ("", "_unfiltered"))
    figures["users_per_second"] = ranks.users_per_second
    figures["peak_rss_mb"] = peak_rss_mb()
    told = {"seed": asked.seed, "budget_minutes": asked.seconds / 60, **details}
    asked.out.write_text(json.dumps({"figures": figures, "details": told}, indent=1) + "\n", encoding="utf-8")
    print(f"test: ndcg@10 {figures['ndcg@10']:.4f}, fitted in {figures['seconds_fit']:.1f} s", flush=True)


def peak_rss_mb() -> float:
    """Of this program alone. What `getrusage` says begins with the size of the program that started it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    kb = peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kb / 1024
