"""What a plan lets models learn from is what had happened before they are asked."""

import polars as pl
import pytest

from endcap.app.config import TrainConfig
from endcap.app.plans import moments, one_by_one, plan
from endcap.app.tasks import question, successes
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


def test_the_last_purchases_are_taken_away_and_one_is_left(histories):
    assert kept(histories.before_last(1)) == {"ann": "abcd", "ben": "a", "cas": "e", "dee": "ca"}
    assert kept(histories.before_last(3)) == {"ann": "ab", "ben": "a", "cas": "e", "dee": "c"}


def test_purchases_of_one_moment_are_asked_for_in_the_order_of_the_log():
    """Some buy everything at once; others a thing a day, and their times stay as they are."""
    events = [
        (f"u{user}", item, "purchase", user % 2 * day * DAY_MS) for day, item in enumerate("cab") for user in range(30)
    ]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "event_type", "ts_ms"], orient="row")
    log, items = one_by_one(conform(frame, EVENTS).lazy()), Vocabulary(list("abc"))
    histories = Histories.build(log, items)
    found = plan(successes(log), histories, TrainConfig(split="leave_one_out"))
    assert histories.of("u7").ts_ms.tolist() == [0, DAY_MS, 2 * DAY_MS]
    for stage, known, target in ((found.examples[0], "c", "a"), (found.test, "ca", "b")):
        asked = [case for cases in stage.cases.values() for case in cases]
        assert {case.user_id for case in asked} == set(histories.users.ids)
        for case in asked:
            assert case.targets == (target,)
            context = question("all", case, histories, items).context
            for history in (stage.past.of(case.user_id).items, context.items):
                assert "".join("abc"[item] for item in history) == known


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
    # of ben and cas something is left to learn from, though there is nothing to ask them
    assert kept(examples.past) == {"ann": "abc", "ben": "a", "cas": "e", "dee": "c"}
    assert kept(found.test.past) == {"ann": "abcd", "ben": "a", "cas": "e", "dee": "ca"}
    for stage in (examples, found.test):
        for case in stage.cases["all"]:
            assert stage.past.of(case.user_id).ts_ms.max() < case.now_ms


def test_leave_one_out_knows_nothing_from_the_moment_of_a_purchase_on():
    """Each purchase is looked at and put into the cart before, and shared at its very moment."""
    steps = ("view", "add_to_cart", "purchase", "share")
    events = [
        (f"u{user}", item, kind, (4 * day + hour - (kind == "share")) * DAY_MS)
        for user in range(25)
        for day, item in enumerate("abcde"[user % 3 :])
        for hour, kind in enumerate(steps)
    ]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "event_type", "ts_ms"], orient="row")
    log = conform(frame, EVENTS).lazy()
    histories = Histories.build(log, Vocabulary(list("abcde")))
    found = plan(successes(log), histories, TrainConfig(split="leave_one_out"))
    for stage, purchase in ((found.examples[0], "d"), (found.test, "e")):
        asked = [case for cases in stage.cases.values() for case in cases]
        assert {case.targets for case in asked} == {(purchase,)}
        for case in asked:
            known = stage.past.of(case.user_id)
            assert known.ts_ms.max() < case.now_ms
            assert len(known) == len(histories.of(case.user_id).before(case.now_ms)) > 0


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
