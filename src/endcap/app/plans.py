"""Who may learn from what, and what is asked: the parts of a log that training goes through.

By time (the default) asks what a shop asks: given everything up to now, what comes next? Leave-one-out, the custom of
the literature, holds out each user's last purchase for the test and the one before it for the ranker, with all that
the user did from its moment on; it is for logs whose times mean nothing, and for comparison with published numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from endcap.app.config import TrainConfig
from endcap.app.tasks import cases
from endcap.core.determinism import rng
from endcap.data.split import check_leakage, split_by_time
from endcap.evaluate.protocols import Cases, leave_one_out_cases, new_only
from endcap.features.sequences import Histories

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """past: what models may be fitted on. until_ms: the moment that recency is counted from. cases: task -> what is
    then asked."""

    past: Histories
    until_ms: int
    cases: Mapping[str, Cases]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """lasting: what slow sources are fitted on for the examples. validation: what the sequence model stops by.
    examples: what the ranker learns from. test: what everything is measured on. end_ms: just after the log."""

    lasting: Histories
    validation: Cases
    examples: tuple[Stage, ...]
    test: Stage
    end_ms: int


def plan(bought: pl.DataFrame, histories: Histories, config: TrainConfig) -> Plan:
    """The plan that the config's `split` names. DataError where a part would be empty."""
    end_ms = int(histories.events.ts_ms.max()) + 1
    make = _by_time if config.split == "time" else _leave_one_out
    return make(bought, histories, config, end_ms)


def one_by_one(log: pl.LazyFrame) -> pl.LazyFrame:
    """Where acts of a user share a moment, each of that user's acts is put a millisecond further than the one before it
    in the log, so that leave-one-out can ask for one of them with the others known."""
    moment = pl.col("ts_ms")
    ordered = log.sort("user_id", "ts_ms", maintain_order=True)
    return ordered.with_columns(
        pl.when((moment == moment.shift(1)).any().over("user_id"))
        .then(moment + pl.int_range(pl.len()).over("user_id"))
        .otherwise(moment)
        .alias("ts_ms")
    )


def moments(from_ms: int, to_ms: int, config: TrainConfig) -> list[tuple[int, int]]:
    """(moment, end of its window), evenly spread over [from_ms, to_ms)."""
    starts = [from_ms + (to_ms - from_ms) * part // config.moments for part in range(config.moments)]
    return [(start, min(to_ms, start + int(config.window_days * DAY_MS))) for start in starts]


def _by_time(bought: pl.DataFrame, histories: Histories, config: TrainConfig, end_ms: int) -> Plan:
    split = split_by_time(bought, config.shares)
    check_leakage(split)
    assert split.validation_from_ms is not None
    assert split.test_from_ms is not None
    validation_ms, test_ms = split.validation_from_ms, split.test_from_ms

    def asked(from_ms: int, to_ms: int) -> dict[str, Cases]:
        return cases(bought, from_ms, to_ms, cart_min_items=config.cart_min_items, seed=config.seed)

    return Plan(
        lasting=histories.until(validation_ms),
        validation=asked(validation_ms, test_ms)["all"],
        examples=tuple(
            Stage(histories.until(moment), moment, asked(moment, window_end))
            for moment, window_end in moments(validation_ms, test_ms, config)
        ),
        test=Stage(histories.until(test_ms), test_ms, asked(test_ms, end_ms)),
        end_ms=end_ms,
    )


def _leave_one_out(bought: pl.DataFrame, histories: Histories, config: TrainConfig, end_ms: int) -> Plan:
    def asked(from_end: int) -> dict[str, Cases]:
        everything = leave_one_out_cases(bought, from_end)
        return {"all": everything, "discovery": new_only(everything, bought)}

    def either(found: Mapping[str, Cases]) -> dict[str, Cases]:
        """Each case that is of both tasks in one of them, by lot: both would ask the same and teach it twice."""
        new = [case.user_id for case in found["discovery"]]
        lots = rng(config.seed, "task of each case").permutation(len(new)) % 2
        asked_new = {user for user, lot in zip(new, lots, strict=True) if lot}
        return {
            "all": Cases(tuple(case for case in found["all"] if case.user_id not in asked_new)),
            "discovery": Cases(tuple(case for case in found["discovery"] if case.user_id in asked_new)),
        }

    test, validation = asked(1), asked(2)
    past = histories.before_last(2)
    return Plan(
        lasting=past,
        validation=validation["all"],
        examples=(Stage(past, end_ms, either(validation)),),
        test=Stage(histories.before_last(1), end_ms, test),
        end_ms=end_ms,
    )
