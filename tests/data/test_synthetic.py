"""Each planted answer is found by the plainest method that may find it, and missed by those that may not."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import polars as pl
import pytest

from endcap.core import tables
from endcap.core.errors import CallerError
from endcap.data.datasets import DATASETS, DAY_MS
from endcap.data.synthetic import PlantedShop, cycle_shop, drift_shop, rhythm_shop, taste_shop

SHOPS = [cycle_shop, rhythm_shop, taste_shop, drift_shop]


def histories(shop: PlantedShop) -> dict[str, list[tuple[str, int]]]:
    """user -> (item, ts_ms), oldest first."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for user, item, ts_ms in shop.dataset.events.sort("ts_ms").select("user_id", "item_id", "ts_ms").collect().rows():
        found[user].append((item, ts_ms))
    return found


def share_right(shop: PlantedShop, guesses: dict[str, str]) -> float:
    return sum(guesses.get(user) == item for user, item in shop.answers.items()) / len(shop.answers)


def most_popular(shop: PlantedShop) -> dict[str, str]:
    """The most bought item of all time that the user has not bought, where bought ones are hidden."""
    users = histories(shop)
    ranked = [item for item, _ in Counter(item for history in users.values() for item, _ in history).most_common()]
    bought = {user: {item for item, _ in history} if shop.hide_bought else set() for user, history in users.items()}
    return {user: next(item for item in ranked if item not in bought.get(user, ())) for user in shop.answers}


@pytest.mark.parametrize("make", SHOPS)
class TestEveryShop:
    def test_it_is_the_same_each_time_and_another_for_another_seed(self, make) -> None:
        one, same, other = make(), make(), make(seed=1)
        assert one.dataset.events.collect().equals(same.dataset.events.collect())
        assert one.answers == same.answers
        assert not one.dataset.events.collect().equals(other.dataset.events.collect())

    def test_the_tables_are_canonical_and_agree(self, make) -> None:
        shop = make()
        events = shop.dataset.events.collect()
        assert dict(events.schema) == {**tables.schema(tables.EVENTS), "line": pl.Int64()}
        assert shop.dataset.items.schema == tables.schema(tables.ITEMS)
        assert shop.dataset.users.schema == tables.schema(tables.USERS)
        assert events["event_id"].is_unique().all()
        assert shop.dataset.items["item_id"].is_unique().all()
        assert shop.dataset.items["title"].is_unique().all()
        assert (shop.dataset.items["price"] > 0).all()
        assert set(events["item_id"]) <= set(shop.dataset.items["item_id"])
        assert set(events["user_id"]) == set(shop.dataset.users["user_id"])
        assert set(shop.answers.values()) <= set(shop.dataset.items["item_id"])
        assert events["ts_ms"].max() < shop.now_ms
        assert events["ts_ms"].max() - events["ts_ms"].min() >= 14 * DAY_MS
        assert len(shop.answers) >= 100

    def test_hidden_items_are_never_the_answer(self, make) -> None:
        shop = make()
        bought = {user: {item for item, _ in history} for user, history in histories(shop).items()}
        for user, answer in shop.answers.items():
            assert (answer in bought.get(user, ())) is not shop.hide_bought

    def test_popularity_of_all_time_does_not_solve_it(self, make) -> None:
        shop = make()
        assert share_right(shop, most_popular(shop)) < 0.5

    def test_it_is_a_data_set_by_name(self, make) -> None:
        name = make().dataset.name
        assert DATASETS.get(name)().name == name


def test_cycle_each_item_has_one_successor_and_it_is_the_answer() -> None:
    shop = cycle_shop()
    successors: dict[str, set[str]] = defaultdict(set)
    users = histories(shop)
    for history in users.values():
        for (item, _), (after, _) in pairwise(history):
            successors[item].add(after)
    assert len(successors) == shop.dataset.items.height
    assert {len(after) for after in successors.values()} == {1}
    assert share_right(shop, {user: min(successors[history[-1][0]]) for user, history in users.items()}) == 1.0


def test_rhythm_only_time_since_the_last_purchase_tells() -> None:
    shop = rhythm_shop()
    due, newest, frequent, oldest = {}, {}, {}, {}
    for user, history in histories(shop).items():
        times: dict[str, list[int]] = defaultdict(list)
        for item, ts_ms in history:
            times[item].append(ts_ms)
        gaps = {item: {b - a for a, b in pairwise(when)} for item, when in times.items()}
        assert {len(gap) for gap in gaps.values()} == {1}
        overdue = {item: (shop.now_ms - when[-1]) / min(gaps[item]) for item, when in times.items()}
        due[user] = max(overdue, key=overdue.__getitem__)
        assert sum(ratio >= 1 for ratio in overdue.values()) == 1
        newest[user] = history[-1][0]
        frequent[user] = max(times, key=lambda item: len(times[item]))
        oldest[user] = min(times, key=lambda item: times[item][-1])
    assert share_right(shop, due) == 1.0
    assert share_right(shop, newest) == 0.0
    assert share_right(shop, frequent) < 0.5
    assert share_right(shop, oldest) < 0.7


def test_taste_only_the_item_left_is_bought_with_the_users_own() -> None:
    shop = taste_shop()
    bought = {user: {item for item, _ in history} for user, history in histories(shop).items()}
    category = dict(
        shop.dataset.items.select("item_id", pl.col("categories").list.first()).iter_rows(),
    )
    by_neighbours, by_category = {}, {}
    for user, own in bought.items():
        together = Counter(item for other in bought.values() if other & own for item in other - own)
        assert len(together) == 1
        by_neighbours[user] = together.most_common()[0][0]
        shelf = {category[item] for item in own}
        left = [item for item in category if category[item] in shelf and item not in own]
        assert len(left) == 1
        by_category[user] = left[0]
    assert share_right(shop, by_neighbours) == 1.0
    assert share_right(shop, by_category) == 1.0


@pytest.mark.parametrize(("half_life_days", "right"), [(1, 1.0), (7, 1.0), (35, 1.0), (90, 0.0)])
def test_drift_recent_popularity_solves_it_up_to_the_stated_half_life(half_life_days: int, right: float) -> None:
    shop = drift_shop()
    weights: dict[str, float] = defaultdict(float)
    for history in histories(shop).values():
        for item, ts_ms in history:
            weights[item] += 2 ** (-(shop.now_ms - ts_ms) / DAY_MS / half_life_days)
    best = max(weights, key=weights.__getitem__)
    assert share_right(shop, dict.fromkeys(shop.answers, best)) == right


@pytest.mark.parametrize(
    "make",
    [
        lambda: cycle_shop(users=10, items=48),
        lambda: cycle_shop(items=5),
        lambda: taste_shop(items_per_group=2),
        lambda: taste_shop(users=10),
    ],
)
def test_a_shop_too_small_for_its_proof_is_refused(make) -> None:
    with pytest.raises(CallerError, match=r"needs at least|needs 4"):
        make()


def test_other_sizes_keep_the_proof() -> None:
    shop = taste_shop(users=640, items_per_group=20, seed=3)
    assert shop.dataset.items.height == 160
    bought = {user: {item for item, _ in history} for user, history in histories(shop).items()}
    assert {len(own) for own in bought.values()} == {19}
