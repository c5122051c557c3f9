"""What a plan lets models learn from is what had happened before they are asked."""

import polars as pl
import pytest

from endcap.app.config import TrainConfig
from endcap.app.plans import moments, plan
from endcap.app.tasks import successes
from endcap.core.tables import EVENTS, conform
from endcap.core.types import EventType
from endcap.features.ids import Vocabulary
from endcap.features.sequences import Histories

DAY_MS = 86_400_000
USERS = {"ann": "abcdb", "ben": "ab", "cas": "e", "dee": "cab"}


@pytest.fixture(scope="module")
def log():
    rows = [
        {
            "event_id": f"{user}-{day}",
            "event_type": EventType.PURCHASE.value,
            "user_id": user,
            "item_id": item,
            "ts_ms": day * DAY_MS,
        }
        for user, items in USERS.items()
        for day, item in enumerate(items)
    ]
    return conform(pl.DataFrame(rows), EVENTS).lazy()


@pytest.fixture(scope="module")
def histories(log):
    return Histories.build(log, Vocabulary(list("abcde")))


def kept(histories):
    return {user: "".join("abcde"[item] for item in histories.of(user).items) for user in USERS}


def test_the_last_acts_go_but_never_all(histories):
    assert kept(histories.without_last(1)) == {"ann": "abcd", "ben": "a", "cas": "e", "dee": "ca"}
    assert kept(histories.without_last(2)) == {"ann": "abc", "ben": "a", "cas": "e", "dee": "c"}
    assert kept(histories.without_last(0)) == USERS


def test_leave_one_out_asks_for_what_was_taken_away(log, histories):
    found = plan(successes(log), histories, TrainConfig(split="leave_one_out"))
    (examples,) = found.examples
    assert {case.user_id: case.targets for case in found.test.cases["all"]} == {
        "ann": ("b",),
        "ben": ("b",),
        "dee": ("b",),
    }
    # what ann had before is nothing new
    assert [case.user_id for case in found.test.cases["discovery"]] == ["ben", "dee"]
    taught = [(case.user_id, case.targets) for found in examples.cases.values() for case in found]
    assert sorted(taught) == [("ann", ("d",)), ("dee", ("a",))]
    assert kept(found.lasting) == kept(examples.past) == kept(histories.without_last(2))
    assert kept(found.test.past) == kept(histories.without_last(1))
    for stage in (examples, found.test):
        for case in stage.cases["all"]:
            assert stage.past.of(case.user_id).ts_ms.max() < case.now_ms


def test_a_case_of_two_tasks_teaches_one_of_them():
    events = [(f"u{user}", f"i{item}", item) for user in range(40) for item in range(user % 7, user % 7 + 5)]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "ts_ms"], orient="row").with_columns(
        event_type=pl.lit("view")
    )
    log = conform(frame, EVENTS).lazy()
    histories = Histories.build(log, Vocabulary(sorted({item for _, item, _ in events})))
    (examples,) = plan(successes(log), histories, TrainConfig(split="leave_one_out")).examples
    users = {task: {case.user_id for case in found} for task, found in examples.cases.items()}
    assert users["all"].isdisjoint(users["discovery"])
    assert len(users["all"]) == len(users["discovery"]) == 20


def test_by_time_nothing_of_a_later_part_is_known(log, histories):
    found = plan(successes(log), histories, TrainConfig(moments=1))
    (examples,) = found.examples
    assert found.lasting.events.ts_ms.max() < examples.until_ms < found.test.until_ms < found.end_ms
    assert found.test.past.events.ts_ms.max() < found.test.until_ms
    assert all(case.now_ms >= found.test.until_ms for case in found.test.cases["all"])
    assert all(examples.until_ms <= case.now_ms < found.test.until_ms for case in examples.cases["all"])


def test_moments_are_spread_over_the_period():
    assert moments(0, 100 * DAY_MS, TrainConfig(moments=4, window_days=30)) == [
        (0, 30 * DAY_MS),
        (25 * DAY_MS, 55 * DAY_MS),
        (50 * DAY_MS, 80 * DAY_MS),
        (75 * DAY_MS, 100 * DAY_MS),
    ]
