"""Splits of an event log into what a model may learn from and what it is judged by.

A split by time asks the question a shop asks: given everything up to now, what comes next? Its borders are moments,
and all events of one moment lie on one side. "The last 20 %" has two readings, by rows and by the span of time;
shops grow, so they differ: both are here. Leave-one-out, the custom of the literature, holds out each user's last event
and lets the training data of one user be later than the test of another; it compares with published numbers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from endcap.core.errors import CallerError, DataError

Shares = tuple[float, float, float]
DEFAULT_SHARES: Shares = (0.6, 0.2, 0.2)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Three disjoint parts of one table, each in the table's order.

    validation_from_ms, test_from_ms: the first moment of each part, UTC milliseconds; None for leave-one-out.
    """

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    validation_from_ms: int | None
    test_from_ms: int | None


def split_by_time(frame: pl.DataFrame, shares: Shares = DEFAULT_SHARES) -> Split:
    """Borders at shares of the rows: with n rows in order of time, validation starts at the time of row ⌊n·train⌋.

    The parts are as near to the shares as whole moments allow. DataError if one of them would be empty.
    """
    _check_shares(shares)
    _check_rows(frame)
    times = frame["ts_ms"].sort()
    # The smallest excess of a sum of decimal shares, such as .6 + .2, must not move a border by a row.
    validation_at, test_at = (math.floor(len(times) * share + 1e-9) for share in (shares[0], shares[0] + shares[1]))
    return _split_at(frame, int(times[validation_at]), int(times[min(test_at, len(times) - 1)]))


def split_by_span(frame: pl.DataFrame, shares: Shares = DEFAULT_SHARES) -> Split:
    """Borders at shares of the time between the first and the last event. DataError if a part would be empty."""
    _check_shares(shares)
    _check_rows(frame)
    first, last = _extreme(frame["ts_ms"].min()), _extreme(frame["ts_ms"].max())
    validation_from, test_from = (
        first + math.ceil((last - first) * share - 1e-6) for share in (shares[0], shares[0] + shares[1])
    )
    return _split_at(frame, validation_from, test_from)


def leave_one_out(frame: pl.DataFrame) -> Split:
    """Each user's last event is test, the one before it validation, the rest train.

    Events of one moment count in the table's order. A user with fewer than three events stays in train whole.
    """
    _check_rows(frame)
    order = pl.struct("ts_ms", pl.int_range(pl.len()).alias("_row"))
    ranked = frame.with_columns(
        order.rank("ordinal", descending=True).over("user_id").alias("_from_end"),
        pl.len().over("user_id").alias("_events"),
    )
    held_out = (pl.col("_from_end") <= 2) & (pl.col("_events") >= 3)
    columns = frame.columns
    return Split(
        train=ranked.filter(~held_out).select(columns),
        validation=ranked.filter(held_out & (pl.col("_from_end") == 2)).select(columns),
        test=ranked.filter(held_out & (pl.col("_from_end") == 1)).select(columns),
        validation_from_ms=None,
        test_from_ms=None,
    )


def check_leakage(split: Split) -> None:
    """DataError if what a model learns from tells it what it is judged by.

    By time: no train event at or after the first validation event, no validation event at or after the first test
    event. Leave-one-out: the same for each user alone, where one moment may be shared, and at most one held-out event
    of each kind a user. For both: no (user_id, event_id) twice.
    """
    _check_no_repeats(split)
    if split.validation_from_ms is None:
        _check_each_user(split.train, split.validation, "train", "validation")
        _check_each_user(split.validation, split.test, "validation", "test")
        _check_each_user(split.train, split.test, "train", "test")
        _check_one_each(split.validation, "validation")
        _check_one_each(split.test, "test")
        return
    _check_before(split.train, split.validation, "train", "validation")
    _check_before(split.validation, split.test, "validation", "test")
    _check_before(split.train, split.test, "train", "test")


def _split_at(frame: pl.DataFrame, validation_from_ms: int, test_from_ms: int) -> Split:
    time = pl.col("ts_ms")
    split = Split(
        train=frame.filter(time < validation_from_ms),
        validation=frame.filter((time >= validation_from_ms) & (time < test_from_ms)),
        test=frame.filter(time >= test_from_ms),
        validation_from_ms=validation_from_ms,
        test_from_ms=test_from_ms,
    )
    for name, part in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        if not part.height:
            raise DataError(
                f"The {name} part of {frame.height} events would be empty: too few distinct times.",
                next_step="Choose other shares, or bring more events.",
            )
    return split


def _check_shares(shares: Shares) -> None:
    if min(shares) <= 0 or not math.isclose(sum(shares), 1.0):
        raise CallerError(
            f"The shares {shares} are not three positive numbers that add up to 1.",
            where="shares",
            next_step="For example (0.6, 0.2, 0.2).",
        )


def _check_rows(frame: pl.DataFrame) -> None:
    if not frame.height:
        raise DataError("There are no events to split.", next_step="Ingest some first.")
    if frame["ts_ms"].null_count():
        raise DataError("Some events have no ts_ms.", next_step="Clean the table first.")


def _extreme(ts_ms: object) -> int:
    """A minimum or maximum of a column that is known to be of whole numbers and not empty."""
    if not isinstance(ts_ms, int):
        raise DataError("The column ts_ms is not of whole numbers.", next_step="Clean the table first.")
    return ts_ms


def _check_before(earlier: pl.DataFrame, later: pl.DataFrame, earlier_name: str, later_name: str) -> None:
    if not earlier.height or not later.height:
        return
    border = _extreme(later["ts_ms"].min())
    leaked = earlier.filter(pl.col("ts_ms") >= border).height
    if leaked:
        raise DataError(
            f"{leaked} {earlier_name} events are not earlier than the first {later_name} event ({border}).",
            where="split",
            next_step="Split the log again by time.",
        )


def _check_each_user(earlier: pl.DataFrame, later: pl.DataFrame, earlier_name: str, later_name: str) -> None:
    border = later.group_by("user_id").agg(pl.col("ts_ms").min().alias("_border"))
    leaked = earlier.join(border, on="user_id").filter(pl.col("ts_ms") > pl.col("_border"))
    if leaked.height:
        raise DataError(
            f"{leaked.height} {earlier_name} events are later than the same user's {later_name} event.",
            where=f"user {leaked['user_id'][0]!r}",
            next_step="Split the log again with leave_one_out.",
        )


def _check_one_each(part: pl.DataFrame, name: str) -> None:
    repeated = part.filter(pl.col("user_id").is_duplicated())
    if repeated.height:
        raise DataError(
            f"A user has more than one {name} event.",
            where=f"user {repeated['user_id'][0]!r}",
            next_step="Split the log again with leave_one_out.",
        )


def _check_no_repeats(split: Split) -> None:
    keys = pl.concat(part.select("user_id", "event_id") for part in (split.train, split.validation, split.test))
    repeated = keys.filter(keys.is_duplicated())
    if repeated.height:
        raise DataError(
            f"The event {repeated['event_id'][0]!r} of user {repeated['user_id'][0]!r} appears more than once.",
            where="split",
            next_step="Remove duplicate events before splitting.",
        )
