"""What a release is asked in training and evaluation: moments of shoppers, with what they then bought.

Three tasks, one for each placement that behaves in its own way:
    all        home: the next basket, repeats count
    discovery  discovery: what is new to the shopper, their own history left out
    cart       cart: a random half of the basket is in the cart, the rest is asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from endcap.core.determinism import rng
from endcap.core.types import Context, EventType, Int32Array, Placement, Query
from endcap.evaluate.protocols import Case, Cases, first_baskets, half_baskets, new_only
from endcap.features.ids import Vocabulary
from endcap.features.sequences import SUCCESSES, Histories, History, enough_purchases
from endcap.features.state import context

PURCHASE = EventType.PURCHASE.value
CART_KINDS = (EventType.ADD_TO_CART.code, EventType.REMOVE_FROM_CART.code)
PLACEMENT = {"all": Placement.HOME, "discovery": Placement.DISCOVERY, "cart": Placement.CART}


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A case in the terms of a release. targets: int32, known items. unreachable: targets that the release does not
    know or that were never sold before, which no ranking can contain."""

    query: Query
    context: Context
    targets: Int32Array
    unreachable: int


def successes(events: pl.LazyFrame) -> pl.DataFrame:
    """The events that count as success, as purchases: purchases, or every act of a shop that hardly logs any."""
    acts = (
        events.filter(pl.col("event_type").is_in([kind.value for kind in SUCCESSES]), pl.col("item_id").is_not_null())
        .select("event_id", "user_id", "item_id", "event_type", "ts_ms", "session_id")
        .collect()
    )
    bought = acts.filter(pl.col("event_type") == PURCHASE)
    return (
        bought
        if enough_purchases(bought.height, acts.height)
        else acts.with_columns(event_type=pl.lit(PURCHASE), session_id=None)
    )


def cases(bought: pl.DataFrame, from_ms: int, to_ms: int, *, cart_min_items: int, seed: int) -> dict[str, Cases]:
    """task -> cases of the window [from_ms, to_ms): one a user."""
    home = first_baskets(bought, from_ms, to_ms)
    return {
        "all": home,
        "discovery": new_only(home, bought),
        "cart": half_baskets(bought, from_ms, to_ms, min_items=cart_min_items, seed=seed),
    }


def of_some_users(tasks: Mapping[str, Cases], most: int) -> tuple[dict[str, Cases], str]:
    """The cases of so many users, drawn by lot from all who are asked anything: the same users in every task, and
    whatever the seed of the training. And a sentence that says so, empty where nobody was left out."""
    users = sorted({case.user_id for found in tasks.values() for case in found})
    if len(users) <= most:
        return dict(tasks), ""
    drawn = {users[place] for place in rng(0, "users to measure").permutation(len(users))[:most]}
    some = {task: replace(found, cases=tuple(c for c in found if c.user_id in drawn)) for task, found in tasks.items()}
    return some, f"Measured on {most:,} of {len(users):,} users, drawn by lot (train.measured)."


def as_newcomer(asked: Question, looked_at: int) -> Question:
    """The same question of someone of whom only this is known: views, a minute apart, of the last few items of the
    history. So the ranker learns to serve anonymous visitors, whom a log of purchases does not show."""
    items = asked.context.items[-looked_at:]
    minutes = np.arange(len(items), 0, -1, dtype=np.int64)
    views = History(
        items,
        np.full(len(items), EventType.VIEW.code, np.int8),
        asked.context.now_ms - 60_000 * minutes,
        np.zeros(len(items), np.uint64),
    )
    known = context(views, asked.context.now_ms, asked.query.placement, cart=asked.context.cart, row=asked.context.row)
    return replace(asked, context=known)


def question(task: str, case: Case, histories: Histories, items: Vocabulary) -> Question:
    """A case with what was known strictly before its moment."""
    placement = PLACEMENT[task]
    known = context(
        _before_the_cart(histories.of(case.user_id).before(case.now_ms)),
        case.now_ms,
        placement,
        cart=items.positions(case.cart) if case.cart else None,
        row=histories.users.position(case.user_id),
    )
    targets = np.sort(items.positions(case.targets))
    query = Query(user_id=case.user_id, placement=placement, now_ms=case.now_ms, cart=case.cart)
    return Question(query, known, targets, len(case.targets) - len(targets))


def _before_the_cart(history: History) -> History:
    """Without the visit that led to the basket, from its first cart act on: what is being put into the cart is the
    answer, and the server would not ask for it."""
    purchases = np.flatnonzero(history.kinds == EventType.PURCHASE.code)
    since = int(purchases[-1]) + 1 if len(purchases) else 0
    cart_acts = np.flatnonzero(np.isin(history.kinds[since:], CART_KINDS))
    return history.take(slice(0, since + int(cart_acts[0]))) if len(cart_acts) else history
