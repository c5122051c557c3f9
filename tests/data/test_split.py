"""Splits with borders worked out by hand, and leaks that must be caught."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.core.errors import CallerError, DataError
from endcap.data.split import Split, check_leakage, leave_one_out, split_by_span, split_by_time


def events(times: list[int], users: list[str] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "event_id": [f"e{number}" for number in range(len(times))],
            "user_id": users or ["u"] * len(times),
            "ts_ms": times,
        },
        schema={"event_id": pl.String, "user_id": pl.String, "ts_ms": pl.Int64},
    )


def ids(frame: pl.DataFrame) -> list[str]:
    return frame["event_id"].to_list()


class TestByTime:
    def test_ten_rows_split_six_two_two(self) -> None:
        split = split_by_time(events([0, 1, 2, 3, 4, 5, 60, 70, 800, 900]))
        assert (split.train.height, split.validation.height, split.test.height) == (6, 2, 2)
        assert (split.validation_from_ms, split.test_from_ms) == (60, 800)

    def test_the_span_is_read_in_time_instead(self) -> None:
        # From 0 to 900: borders at 540 and 720.
        split = split_by_span(events([0, 1, 2, 3, 4, 5, 60, 540, 719, 900]))
        assert (split.validation_from_ms, split.test_from_ms) == (540, 720)
        assert ids(split.validation) == ["e7", "e8"]
        assert ids(split.test) == ["e9"]

    def test_a_moment_is_never_divided(self) -> None:
        # Row 6 of 10 is at time 5, with rows 3 to 7: all of them are validation.
        split = split_by_time(events([1, 2, 3, 5, 5, 5, 5, 5, 8, 9]))
        assert ids(split.train) == ["e0", "e1", "e2"]
        assert ids(split.validation) == ["e3", "e4", "e5", "e6", "e7"]

    def test_rows_keep_their_order(self) -> None:
        split = split_by_time(events([9, 0, 8, 1, 7, 2, 6, 3, 5, 4]))
        assert ids(split.train) == ["e1", "e3", "e5", "e7", "e8", "e9"]
        assert ids(split.test) == ["e0", "e2"]

    @pytest.mark.parametrize("split", [split_by_time, split_by_span])
    def test_what_cannot_be_split_is_an_error(self, split) -> None:
        with pytest.raises(DataError, match="no events"):
            split(events([]))
        with pytest.raises(DataError, match="would be empty"):
            split(events([5, 5, 5, 5]))
        with pytest.raises(DataError, match="no ts_ms"):
            split(events([1, None, 3]))  # type: ignore[list-item]
        for shares in ((0.5, 0.2, 0.2), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1)):
            with pytest.raises(CallerError, match="shares"):
                split(events([1, 2, 3]), shares)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 40), min_size=5, max_size=80))
    def test_every_split_is_complete_and_without_leaks(self, times: list[int]) -> None:
        frame = events(times)
        for cut in (split_by_time, split_by_span):
            try:
                split = cut(frame)
            except DataError:
                assert len(set(times)) < 25  # too few distinct times is the only reason
                continue
            check_leakage(split)
            assert sorted(ids(split.train) + ids(split.validation) + ids(split.test)) == sorted(ids(frame))


class TestLeaveOneOut:
    def test_last_is_test_and_the_one_before_is_validation(self) -> None:
        split = leave_one_out(events([4, 1, 3, 2, 9, 8], ["a", "a", "a", "a", "b", "b"]))
        assert ids(split.train) == ["e1", "e3", "e4", "e5"]  # b has two events only
        assert ids(split.validation) == ["e2"]
        assert ids(split.test) == ["e0"]
        assert split.validation_from_ms is None
        check_leakage(split)

    def test_events_of_one_moment_count_in_the_order_of_the_table(self) -> None:
        split = leave_one_out(events([1, 1, 1, 1]))
        assert (ids(split.train), ids(split.validation), ids(split.test)) == (["e0", "e1"], ["e2"], ["e3"])
        check_leakage(split)

    def test_no_column_is_added(self) -> None:
        frame = events([1, 2, 3])
        split = leave_one_out(frame)
        assert split.train.columns == split.test.columns == frame.columns


class TestLeakage:
    def by_time(self, train: list[int], validation: list[int], test: list[int]) -> Split:
        frame = events(train + validation + test)
        first, second = len(train), len(train) + len(validation)
        return Split(frame[:first], frame[first:second], frame[second:], min(validation), min(test))

    def test_a_train_event_at_or_after_validation_is_caught(self) -> None:
        check_leakage(self.by_time([1, 2], [3], [4]))
        for train in ([1, 3], [1, 9]):
            with pytest.raises(DataError, match="1 train events are not earlier than the first validation"):
                check_leakage(self.by_time(train, [3], [4]))

    def test_a_validation_event_after_test_is_caught(self) -> None:
        with pytest.raises(DataError, match="validation events are not earlier than the first test"):
            check_leakage(self.by_time([1], [3, 5], [4]))

    def test_an_event_in_two_parts_is_caught(self) -> None:
        frame = events([1, 2, 3])
        again = frame[:1].with_columns(ts_ms=pl.lit(9, pl.Int64))
        with pytest.raises(DataError, match="'e0' of user 'u' appears more than once"):
            check_leakage(Split(frame[:1], frame[1:2], again, 2, 9))

    def test_leave_one_out_is_judged_for_each_user_alone(self) -> None:
        train = events([1, 50], ["a", "b"])
        validation = events([2, 60], ["a", "b"]).with_columns(event_id=pl.col("event_id") + "v")
        test = events([3, 70], ["a", "b"]).with_columns(event_id=pl.col("event_id") + "t")
        check_leakage(Split(train, validation, test, None, None))
        late = train.with_columns(ts_ms=pl.lit(55, pl.Int64))
        with pytest.raises(DataError, match=r"user 'a': 1 train events are later than the same user's validation"):
            check_leakage(Split(late, validation, test, None, None))

    def test_two_held_out_events_of_one_user_are_caught(self) -> None:
        test = events([3, 4]).with_columns(event_id=pl.col("event_id") + "t")
        with pytest.raises(DataError, match="more than one test event"):
            check_leakage(Split(events([1]), events([]), test, None, None))
