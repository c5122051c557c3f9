import polars as pl

from endcap.evaluate.protocols import (
    NO_BASKET,
    NOTHING_NEW,
    TOO_SHORT,
    Case,
    first_baskets,
    half_baskets,
    halved,
    leave_one_out_cases,
    new_only,
)

LETTERS = "abcdefghijkl"


def history(log, user: str = "z") -> pl.DataFrame:
    """Someone bought every letter at time 1."""
    return log([(user, 1, letter, "old") for letter in LETTERS])


def test_first_basket_is_one_users_purchases_of_one_session(log):
    frame = pl.concat(
        [
            history(log),
            log(
                [
                    ("ann", 101, "b", "s1"),
                    ("ann", 100, "a", "s1"),
                    ("ann", 102, "b", "s1"),
                    ("ann", 150, "c", "s2"),
                    ("bob", 120, "d", "s1"),
                ]
            ),
        ]
    )
    found = first_baskets(frame, 100, 200)
    assert found.cases == (Case("ann", 100, ("a", "b")), Case("bob", 120, ("d",)))
    assert found.dropped == {}


def test_row_order_and_laziness_change_nothing(log):
    rows = [("ann", 100 + n, letter, f"s{n // 3}") for n, letter in enumerate(LETTERS)]
    frame = pl.concat([history(log), log(rows)])
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    assert first_baskets(frame, 100, 200) == first_baskets(shuffled.lazy(), 100, 200)
    assert half_baskets(frame, 100, 200, min_items=3) == half_baskets(shuffled, 100, 200, min_items=3)


def test_purchases_without_a_session_share_a_basket_when_they_share_a_time(log):
    frame = pl.concat([history(log), log([("ann", 100, "a", None), ("ann", 100, "b", None), ("ann", 101, "c", None)])])
    assert first_baskets(frame, 100, 200).cases == (Case("ann", 100, ("a", "b")),)


def test_basket_begun_before_the_window_does_not_enter_with_its_tail(log):
    frame = pl.concat([history(log), log([("ann", 99, "a", "s1"), ("ann", 101, "b", "s1"), ("ann", 110, "c", "s2")])])
    assert first_baskets(frame, 100, 200).cases == (Case("ann", 110, ("c",)),)


def test_window_is_open_at_its_end_and_nothing_later_is_seen(log):
    frame = pl.concat([history(log), log([("ann", 199, "a", "s"), ("ann", 200, "b", "s"), ("bob", 200, "b", "s")])])
    assert first_baskets(frame, 100, 200).cases == (Case("ann", 199, ("a",)),)


def test_items_nobody_bought_before_stay_targets(log):
    """Dropping what no model can know would flatter every model."""
    found = first_baskets(log([("ann", 100, "a", "s"), ("ann", 100, "new", "s"), ("bob", 100, "new", "s")]), 100, 200)
    assert found.cases == (Case("ann", 100, ("a", "new")), Case("bob", 100, ("new",)))
    assert found.dropped == {}


def test_only_purchases_make_baskets(log):
    frame = pl.concat([history(log), log([("ann", 100, "a", "s")], event_type="view")])
    assert len(first_baskets(frame, 100, 200)) == 0


def test_half_of_the_first_large_basket_is_known(log):
    rows = [("ann", 100, letter, "small") for letter in "abc"] + [
        ("ann", 110 + n, LETTERS[n], "large") for n in range(7)
    ]
    frame = pl.concat([history(log), log([*rows, ("bob", 120, "a", "s")])])
    found = half_baskets(frame, 100, 200)
    assert found.dropped == {NO_BASKET: 1}
    (case,) = found
    assert (case.user_id, case.now_ms) == ("ann", 110)
    assert (len(case.cart), len(case.targets)) == (3, 4)
    assert sorted(case.cart + case.targets) == list("abcdefg")
    assert case.exclude == case.cart


def test_half_depends_on_the_seed_and_the_user_alone(log):
    rows = [(user, 100, letter, "s") for user in ("ann", "bob") for letter in LETTERS]
    frame = pl.concat([history(log), log(rows)])
    both = half_baskets(frame, 100, 200)
    alone = half_baskets(frame.filter(pl.col("user_id") != "ann"), 100, 200)
    assert both[1] == alone[0]
    carts = {half_baskets(frame, 100, 200, seed=seed)[0].cart for seed in range(8)}
    assert len(carts) > 1
    assert both[0].cart != both[1].cart


def test_halving_leaves_single_targets_whole():
    (case,) = halved([Case("ann", 1, ("a",), exclude=("x",))])
    assert case == Case("ann", 1, ("a",), exclude=("x",))


def test_leave_one_out_takes_acts_from_the_end(log):
    frame = pl.concat(
        [
            log([("ann", 1, "a", None), ("ann", 2, "b", None), ("ann", 3, "c", None), ("bob", 1, "a", None)]),
            log([("ann", 9, "d", None)], event_type="impression"),
        ]
    )
    test, validation = leave_one_out_cases(frame), leave_one_out_cases(frame, from_end=2)
    assert test.cases == (Case("ann", 3, ("c",)),)
    assert validation.cases == (Case("ann", 2, ("b",)),)
    assert test.dropped == {TOO_SHORT: 1}
    assert len(leave_one_out_cases(frame, from_end=3)) == 0


def test_leave_one_out_keeps_the_logs_order_at_equal_times(log):
    frame = log([("ann", 1, "a", None), ("ann", 1, "c", None), ("ann", 1, "b", None)])
    assert leave_one_out_cases(frame).cases == (Case("ann", 1, ("b",)),)


def test_new_only_keeps_what_was_never_had_and_excludes_the_rest(log):
    frame = pl.concat(
        [
            history(log),
            log([("ann", 50, "a", "s0"), ("ann", 60, "k", "s1"), ("bob", 50, "b", "s0"), ("ann", 170, "c", "late")]),
            log([("ann", 70, "c", None)], event_type="view"),
            log([("ann", 100, letter, "s") for letter in "abc"] + [("bob", 100, "b", "s")]),
        ]
    )
    found = new_only(first_baskets(frame, 100, 200), frame)
    # a view is no purchase, and the purchase at 170 is not yet known
    assert found.cases == (Case("ann", 100, ("b", "c"), exclude=("a", "k")),)
    assert found.dropped == {NOTHING_NEW: 1}


def test_new_only_counts_any_act_where_nothing_is_bought(log):
    frame = log([("ann", 1, "a", None), ("ann", 2, "b", None), ("ann", 3, "c", None)], event_type="rating")
    assert new_only(leave_one_out_cases(frame), frame).cases == (Case("ann", 3, ("c",), exclude=("a", "b")),)
    again = pl.concat([frame, log([("ann", 4, "a", None)], event_type="rating")])
    assert new_only(leave_one_out_cases(again), again).dropped == {NOTHING_NEW: 1}


def test_new_only_carries_on_the_count(log):
    large = half_baskets(log([("ann", 100, "a", "s"), ("ann", 100, "b", "s"), ("bob", 100, "a", "s")]), 100, 200, 2)
    found = new_only(large, log([("ann", 1, "a", "s"), ("ann", 1, "b", "s")]))
    assert found.dropped == {NO_BASKET: 1, NOTHING_NEW: 1}
