"""Small shops in which the right recommendation is known for certain, to check models before real data does.

Each shop plants one structure and nothing else, so that a model that is meant to find that structure either does or is
wrong. The same arguments give the same shop. Who must solve what, and why it is provable, stands with each shop; "must"
means the right item first for at least 99 % of the users in `answers`.

| Shop | Must be solved by | Cannot be solved by |
|---|---|---|
| cycle_shop | transition graph, sequence transformer | popularity, order-blind models (item-kNN, EASE) |
| rhythm_shop | buy-again with a sense of time | popularity, most frequent, most recent, order alone |
| taste_shop | item-kNN, EASE, factorisation; content by category | popularity |
| drift_shop | popularity with a half-life of at most 35 days | popularity of all time |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from endcap.core import tables
from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.types import EventType
from endcap.data.datasets import DATASETS, DAY_MS, Dataset, items_table

START_MS = 1_767_225_600_000  # 1 January 2026, 00:00 UTC
HOUR_MS = 3_600_000

_SHELVES = {
    "Dairy": ("Whole Milk", "Greek Yogurt", "Salted Butter", "Cheddar", "Cream Cheese", "Kefir"),
    "Bakery": ("Sourdough Loaf", "Rye Bread", "Croissants", "Bagels", "Dinner Rolls", "Corn Tortillas"),
    "Produce": ("Bananas", "Cherry Tomatoes", "Baby Spinach", "Avocados", "Carrots", "Blueberries"),
    "Pantry": ("Spaghetti", "Basmati Rice", "Olive Oil", "Black Beans", "Tomato Passata", "Rolled Oats"),
    "Drinks": ("Orange Juice", "Sparkling Water", "Ground Coffee", "Green Tea", "Ginger Ale", "Oat Drink"),
    "Household": ("Dish Soap", "Paper Towels", "Laundry Powder", "Bin Liners", "Sponges", "Glass Cleaner"),
    "Pets": ("Dog Biscuits", "Cat Litter", "Dry Cat Food", "Dog Chews", "Bird Seed", "Fish Flakes"),
    "Baby": ("Nappies", "Baby Wipes", "Apple Puree", "Infant Formula", "Rice Cereal", "Baby Lotion"),
}
_SHELF_PRICES = {
    "Dairy": 2.5,
    "Bakery": 3.0,
    "Produce": 2.0,
    "Pantry": 3.5,
    "Drinks": 4.0,
    "Household": 6.0,
    "Pets": 9.0,
    "Baby": 11.0,
}
_SIZES = ("Small", "Medium", "Large", "Family")
_DEPARTMENTS = tuple(_SHELVES)


@dataclass(frozen=True, slots=True, eq=False)
class PlantedShop:
    """A shop and its right answers.

    answers: user_id -> the item_id that must come first. now_ms: the moment the question is asked at, after every
    event. hide_bought: whether items the user has bought are to be left out, as on a discovery shelf.
    """

    dataset: Dataset
    answers: dict[str, str]
    now_ms: int
    hide_bought: bool


@dataclass(frozen=True, slots=True)
class _Purchase:
    user_id: str
    item_id: str
    ts_ms: int


def cycle_shop(users: int = 300, items: int = 48, seed: int = 0) -> PlantedShop:
    """Every user walks the same ring of items: after item a always comes f(a), one purchase a day.

    f is a random ring over all items; users start anywhere, on any of the first 14 days, and buy 6 to 12 items.
    Provable: a is followed by f(a) in every history and by nothing else, every f(a) is seen, and f(last) is unbought
    because no walk is longer than the ring. Sets of items do not tell the direction: both neighbours of a walk fit.
    """
    _require(users >= items, "cycle_shop needs at least as many users as items, so that every step is seen.")
    _require(items >= 14, "cycle_shop needs at least 14 items, so that no walk comes round.")
    draw = rng(seed, "cycle_shop")
    ring = draw.permutation(items)
    catalogue = _catalogue(items)
    names = catalogue["item_id"].to_list()
    log: list[_Purchase] = []
    answers: dict[str, str] = {}
    for user in range(users):
        # The first users start once at each item: no step is left to chance.
        start = user if user < items else int(draw.integers(items))
        steps, day, hour = int(draw.integers(6, 13)), int(draw.integers(14)), int(draw.integers(8, 20))
        walk = [names[ring[(start + step) % items]] for step in range(steps + 1)]
        for step, item_id in enumerate(walk[:-1]):
            log.append(_Purchase(_user(user), item_id, _at(day + step, hour)))
        answers[_user(user)] = walk[-1]
    return _shop("cycle-shop", log, catalogue, answers, now_ms=_at(28, 0), hide_bought=True)


def rhythm_shop(users: int = 300, seed: int = 0) -> PlantedShop:
    """Every user re-buys three staples, one weekly, one fortnightly, one every four weeks; one of them is due now.

    Sixteen weeks, each purchase an order of its own. An item has one period for everybody. For a third of the users
    each, the weekly, the fortnightly or the four-weekly staple was last bought exactly its period ago, the other two
    3 of 7, 5 of 14 or 10 of 28 days ago. Provable: no gap ever differs from its period, so the due item is bought
    today and neither other is for at least four days. Frequency always says the weekly staple and recency is right
    for nobody, so only the time since the last purchase, measured against the item's or the user's gaps, tells.
    """
    draw = rng(seed, "rhythm_shop")
    catalogue = _catalogue(24)
    names = catalogue["item_id"].to_list()
    periods = (7, 14, 28)
    elapsed = (3, 5, 10)
    today = 16 * 7
    log: list[_Purchase] = []
    answers: dict[str, str] = {}
    for user in range(users):
        due, hour = user % 3, int(draw.integers(8, 20))
        for kind, (period, since) in enumerate(zip(periods, elapsed, strict=True)):
            item_id = names[kind * 8 + int(draw.integers(8))]
            last = today - (period if kind == due else since)
            log += [_Purchase(_user(user), item_id, _at(day, hour)) for day in range(last, -1, -period)]
            if kind == due:
                answers[_user(user)] = item_id
    return _shop("rhythm-shop", log, catalogue, answers, now_ms=_at(today, 20), hide_bought=False)


def taste_shop(users: int = 320, items_per_group: int = 12, seed: int = 0) -> PlantedShop:
    """A checkerboard: a user buys from one of eight groups only, everything in it but one item.

    A group is a department, its items are in one category, and a user buys them in random order over four weeks, one
    or two a visit. Within a group the users take turns at which item they have left. Provable: of all items the user
    has not bought only the one left is ever bought by anyone who bought one of theirs, so every other has no evidence
    at all; and it is the only unbought item of the only department the user knows.
    """
    groups = len(_DEPARTMENTS)
    _require(4 <= items_per_group <= 54, "taste_shop needs 4 to 54 items in a group: two a visit, a visit a day.")
    _require(users >= 8 * groups, "taste_shop needs at least 8 users in a group.")
    draw = rng(seed, "taste_shop")
    catalogue = _catalogue(groups * items_per_group)
    names = catalogue["item_id"].to_list()
    log: list[_Purchase] = []
    answers: dict[str, str] = {}
    for user in range(users):
        group, left = user % groups, user // groups % items_per_group
        members = [names[group + groups * place] for place in range(items_per_group)]
        bought = [members[place] for place in draw.permutation(items_per_group) if place != left]
        visits = np.sort(draw.choice(28, size=len(bought) // 2 + 1, replace=False))
        hour = int(draw.integers(8, 20))
        for position, item_id in enumerate(bought):
            log.append(_Purchase(_user(user), item_id, _at(int(visits[(position + 1) // 2]), hour)))
        answers[_user(user)] = members[left]
    return _shop("taste-shop", log, catalogue, answers, now_ms=_at(28, 0), hide_bought=True)


def drift_shop(users: int = 400, newcomers: int = 100, seed: int = 0) -> PlantedShop:
    """What everyone buys changes at once: one hit for five weeks, then another for three.

    Each user buys once a week for eight weeks, on a day of the week of their own: the old hit in weeks 1 to 5, the new
    hit in weeks 6 to 8, and every other week one more item at random. `answers` holds newcomers, of whom there is no
    event at all: nothing but popularity is known. Provable: a user bought the new hit a, a + 7 and a + 14 days ago and
    the old one a + 21 to a + 49 days ago. Weighed by 2^(-age/h), and with q = 2^(-7/h), the new hit is ahead while
    1 + q + q² > q³ + q⁴ + q⁵ + q⁶ + q⁷, which holds for every half-life h up to 35 days; unweighted it is 3 against 5.
    """
    draw = rng(seed, "drift_shop")
    catalogue = _catalogue(48)
    names = catalogue["item_id"].to_list()
    old_hit, new_hit = (names[place] for place in draw.choice(len(names), 2, replace=False))
    others = [name for name in names if name not in (old_hit, new_hit)]
    log: list[_Purchase] = []
    for user in range(users):
        weekday, hour = int(draw.integers(7)), int(draw.integers(8, 20))
        for week in range(8):
            ts_ms = _at(7 * week + weekday, hour)
            log.append(_Purchase(_user(user), old_hit if week < 5 else new_hit, ts_ms))
            if (week + user) % 2:
                log.append(_Purchase(_user(user), others[int(draw.integers(len(others)))], ts_ms))
    answers = {f"newcomer-{number:04d}": new_hit for number in range(newcomers)}
    return _shop("drift-shop", log, catalogue, answers, now_ms=_at(56, 0), hide_bought=True)


def _shop(
    name: str,
    log: Sequence[_Purchase],
    catalogue: pl.DataFrame,
    answers: dict[str, str],
    *,
    now_ms: int,
    hide_bought: bool,
) -> PlantedShop:
    raw = pl.DataFrame(
        [(purchase.user_id, purchase.item_id, purchase.ts_ms) for purchase in log],
        schema={"user_id": pl.String, "item_id": pl.String, "ts_ms": pl.Int64},
        orient="row",
    )
    priced = raw.join(catalogue.select("item_id", "price", "currency"), on="item_id", maintain_order="left")
    # Purchases of one user at one moment are one order.
    described = priced.sort("ts_ms", maintain_order=True).with_columns(
        session_id=pl.format("{}-{}", "user_id", "ts_ms"),
        event_id=pl.format("{}-{}-{}", "user_id", "ts_ms", "item_id"),
        event_type=pl.lit(EventType.PURCHASE.value),
        quantity=pl.lit(1.0),
    )
    events = tables.conform(described, tables.EVENTS).with_columns(line=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
    users = tables.conform(raw.select(pl.col("user_id").unique(maintain_order=True)), tables.USERS)
    dataset = Dataset(name, events.lazy(), catalogue, users.with_columns(pl.col("attributes").fill_null("{}")))
    return PlantedShop(dataset, answers, now_ms, hide_bought)


def _catalogue(size: int) -> pl.DataFrame:
    """`size` items dealt in turn to the eight departments: item k is in department k mod 8."""
    rows: list[dict[str, object]] = []
    for position in range(size):
        department = _DEPARTMENTS[position % len(_DEPARTMENTS)]
        shelf, place = _SHELVES[department], position // len(_DEPARTMENTS)
        round_, product = divmod(place, len(shelf))
        size_name = _SIZES[round_] if round_ < len(_SIZES) else f"Pack of {round_}"
        rows.append(
            {
                "item_id": f"{department.lower()}-{place:03d}",
                "title": f"{shelf[product]}, {size_name}",
                "price": round(_SHELF_PRICES[department] * (1 + 0.1 * product) * (1 + 0.5 * round_), 2),
                "currency": "USD",
                "categories": [department],
                "brand": "Endcap Foods" if product % 2 else "Corner & Co.",
                "created_ms": START_MS,
            }
        )
    return items_table(rows)


def _user(number: int) -> str:
    return f"shopper-{number:04d}"


def _at(day: int, hour: int) -> int:
    return START_MS + day * DAY_MS + hour * HOUR_MS


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise CallerError(sentence, where="synthetic", next_step="Choose other numbers.")


DATASETS.add("cycle-shop", lambda: cycle_shop().dataset)
DATASETS.add("rhythm-shop", lambda: rhythm_shop().dataset)
DATASETS.add("taste-shop", lambda: taste_shop().dataset)
DATASETS.add("drift-shop", lambda: drift_shop().dataset)
