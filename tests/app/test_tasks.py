"""What training asks must be what the server would be asked."""

import polars as pl

from endcap.app.tasks import as_newcomer, cases, of_some_users, question, successes
from endcap.core.tables import EVENTS, conform
from endcap.evaluate.protocols import Case, Cases
from endcap.features.ids import Vocabulary
from endcap.features.sequences import Histories

DAY_MS = 86_400_000
SCHEMA = {"event_type": pl.String, "day": pl.Float64, "item_id": pl.String, "session_id": pl.String}


def log(rows):
    """Rows (kind, day, item, order) of one user."""
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return conform(
        frame.with_columns(
            ts_ms=(pl.col("day") * DAY_MS).cast(pl.Int64),
            user_id=pl.lit("u"),
            event_id=pl.int_range(pl.len()).cast(str),
        ),
        EVENTS,
    )


def asked(rows, task="all"):
    events = log(rows)
    items = Vocabulary(["a", "b", "c"])
    found = cases(successes(events.lazy()), 5 * DAY_MS, 9 * DAY_MS, cart_min_items=2, seed=0)[task]
    return question(task, found[0], Histories.build(events.lazy(), items), items)


BOUGHT_WITH_A_CART = [
    ("purchase", 1, "c", "o1"),
    ("view", 6.0, "b", None),
    ("add_to_cart", 6.1, "a", None),
    ("add_to_cart", 6.2, "b", None),
    ("purchase", 6.3, "a", "o2"),
    ("purchase", 6.3, "b", "o2"),
]


def test_the_cart_that_became_the_basket_is_not_known_beforehand():
    known = asked(BOUGHT_WITH_A_CART).context
    assert known.items.tolist() == [2, 1]  # what was bought, and the look before the first cart act
    assert known.cart.tolist() == []


def test_in_the_cart_task_only_the_half_that_is_given_is_known():
    one = asked(BOUGHT_WITH_A_CART, "cart")
    assert len(one.context.cart) == len(one.targets) == 1
    assert set(one.context.cart.tolist()) | set(one.targets.tolist()) == {0, 1}
    assert known_adds(one) == 0


def known_adds(one):
    return int((one.context.kinds == 2).sum())


def test_a_newcomer_is_known_by_a_few_looks_only():
    one = as_newcomer(asked(BOUGHT_WITH_A_CART), 5)
    assert one.context.bought.tolist() == []
    assert one.context.session.tolist() == [2, 1]


def test_a_few_purchases_do_not_hide_everything_else():
    views = [("view", 1 + place / 1000, "a", None) for place in range(500)]
    assert successes(log([*views, ("purchase", 2, "b", "o")]).lazy()).height == 501
    assert successes(log([*views, ("remove_from_cart", 2, "b", None)]).lazy()).height == 500


def test_of_many_users_some_are_measured_the_same_in_every_task():
    everybody = Cases(tuple(Case(f"u{user}", 0, ("a",)) for user in range(1000)), {"too few acts": 3})
    tasks = {"all": everybody, "discovery": Cases(everybody.cases[::2])}
    some, note = of_some_users(tasks, 100)
    users = {task: {case.user_id for case in found} for task, found in some.items()}
    assert len(users["all"]) == 100
    assert users["discovery"] == users["all"] & {case.user_id for case in tasks["discovery"]}
    assert some["all"].dropped == everybody.dropped
    assert note == "Measured on 100 of 1,000 users, drawn by lot (train.measured)."
    assert of_some_users(tasks, 1000) == (tasks, "")
