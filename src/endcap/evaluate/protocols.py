"""What is asked of a recommender, and what the shopper then did: evaluation cases cut from a log by time.

A case is one moment of one user: what was bought at it (the targets) and what was in the cart just before. The
builders read a cleaned events frame (`tables.EVENTS`) and look at nothing later than the window they are given. The
purchases of one user that share a session are one basket; without a session, those that share a time. A basket belongs
to the window in which its first purchase falls. Whatever is left out is counted in `Cases.dropped`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.types import EventType

PURCHASE = EventType.PURCHASE.value
NOT_ACTS = (EventType.IMPRESSION.value, EventType.SEARCH.value, EventType.REMOVE_FROM_CART.value)
NO_BASKET = "no basket in the window is large enough"
TOO_SHORT = "too few acts"
NOTHING_NEW = "every target was had before"


@dataclass(frozen=True, slots=True)
class Case:
    """One question with its answer. All items are shop ids, sorted, distinct; targets is never empty.

    now_ms: the moment of asking, the basket's first event; history ends strictly before it. cart: known to be in the
    basket. exclude: items that are not eligible as an answer (the cart, and what the protocol rules out); never a
    target.
    """

    user_id: str
    now_ms: int
    targets: tuple[str, ...]
    cart: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases sorted by user and time, and what was left out: reason -> how many users (or baskets)."""

    cases: tuple[Case, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __getitem__(self, place: int) -> Case:
        return self.cases[place]


def first_baskets(frame: pl.DataFrame | pl.LazyFrame, from_ms: int, to_ms: int) -> Cases:
    """Each user's first basket in [from_ms, to_ms).

    Targets are its distinct items: repeats from earlier baskets, and items that nobody bought before, which no model
    can know, included. Leaving those out would make every model look better than it is.
    """
    first = _baskets(frame, from_ms, to_ms).group_by("user_id", maintain_order=True).first()
    return _gathered(map(_case, first.iter_rows(named=True)), {})


def half_baskets(
    frame: pl.DataFrame | pl.LazyFrame, from_ms: int, to_ms: int, min_items: int = 6, seed: int = 0
) -> Cases:
    """Each user's first basket in [from_ms, to_ms) with at least `min_items` distinct items.

    A random half of the items, rounded down, is the cart; the rest are the targets. Users of the window without
    such a basket are dropped.
    """
    baskets = _baskets(frame, from_ms, to_ms)
    large = baskets.filter(pl.col("items").list.len() >= max(min_items, 2))
    first = large.group_by("user_id", maintain_order=True).first()
    whole = _gathered(map(_case, first.iter_rows(named=True)), {})
    return _gathered(halved(whole, seed), {NO_BASKET: baskets["user_id"].n_unique() - len(first)})


def leave_one_out_cases(frame: pl.DataFrame | pl.LazyFrame, from_end: int = 1) -> Cases:
    """Each user's act number `from_end` from the end is the target, what came before it the history.

    Acts are the events on an item, but for impressions and removals from the cart; equal times keep the log's order.
    `from_end` 1 is the test case, 2 the validation case. Users without an earlier act are dropped. Nothing is
    excluded; `new_only` makes the filtered protocol of it.
    """
    if from_end < 1:
        raise CallerError(f"from_end is {from_end}.", where="leave_one_out_cases", next_step="Count from 1.")
    sequences = (
        _acts(frame)
        .sort("user_id", "ts_ms", maintain_order=True)
        .group_by("user_id", maintain_order=True)
        .agg("item_id", "ts_ms")
        .collect()
    )
    long_enough = sequences.filter(pl.col("item_id").list.len() > from_end)
    targets = long_enough.select("user_id", pl.col("item_id", "ts_ms").list.get(-from_end))
    return _gathered(
        (Case(user_id, now_ms, (item,)) for user_id, item, now_ms in targets.iter_rows()),
        {TOO_SHORT: len(sequences) - len(long_enough)},
    )


def halved(cases: Iterable[Case], seed: int = 0) -> Iterator[Case]:
    """The cases with a random half of the targets, rounded down, moved to the cart; cases of one target stay whole.

    The draw depends on the seed, the user and the moment alone, not on the order of the cases or of the log.
    """
    for case in cases:
        draw = rng(seed, f"halved:{case.user_id}:{case.now_ms}")
        places = draw.permutation(len(case.targets))[: len(case.targets) // 2].tolist()
        cart = {case.targets[place] for place in places}
        yield replace(
            case,
            targets=tuple(item for item in case.targets if item not in cart),
            cart=tuple(sorted(cart.union(case.cart))),
            exclude=tuple(sorted(cart.union(case.exclude))),
        )


def new_only(cases: Iterable[Case], history: pl.DataFrame | pl.LazyFrame) -> Cases:
    """The cases with only the targets the user had not had before `now_ms`; what was had is excluded.

    Had means bought; where `history` holds no purchases at all, acted on. Cases left without a target are dropped.
    """
    had = _first_had(history)
    kept: list[Case] = []
    dropped = 0
    for case in cases:
        before = {item for item, ts_ms in had.get(case.user_id, ()) if ts_ms < case.now_ms}
        targets = tuple(item for item in case.targets if item not in before)
        if targets:
            kept.append(replace(case, targets=targets, exclude=tuple(sorted(before.union(case.exclude)))))
        dropped += not targets
    return _gathered(kept, {**getattr(cases, "dropped", {}), NOTHING_NEW: dropped})


def _baskets(frame: pl.DataFrame | pl.LazyFrame, from_ms: int, to_ms: int) -> pl.DataFrame:
    """user_id, now_ms and the sorted distinct items of each basket begun in the window, by user and time.

    The window is applied to whole baskets, so that one begun before it does not enter with its tail.
    """
    if from_ms >= to_ms:
        raise CallerError(
            f"The window [{from_ms}, {to_ms}) is empty.", where="evaluate.protocols", next_step="Give from_ms < to_ms."
        )
    events = frame.lazy()
    basket = pl.coalesce(pl.concat_str(pl.lit("s"), "session_id"), pl.concat_str(pl.lit("t"), "ts_ms"))
    until = events.filter(
        pl.col("event_type") == PURCHASE, pl.col("item_id").is_not_null(), pl.col("ts_ms") < to_ms
    ).select("user_id", "ts_ms", "item_id", basket=basket)
    inside = until.filter(pl.col("ts_ms") >= from_ms).select("user_id", "basket").unique()
    return (
        until.join(inside, on=["user_id", "basket"], how="semi")
        .group_by("user_id", "basket")
        .agg(now_ms=pl.col("ts_ms").min(), items=pl.col("item_id").unique().sort())
        .filter(pl.col("now_ms") >= from_ms)
        .sort("user_id", "now_ms", "basket")
        .select("user_id", "now_ms", "items")
        .collect()
    )


def _acts(frame: pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
    named = pl.col("item_id").is_not_null() & ~pl.col("event_type").is_in(NOT_ACTS)
    return frame.lazy().filter(named).select("user_id", "item_id", "ts_ms", "event_type")


def _first_had(history: pl.DataFrame | pl.LazyFrame) -> dict[str, list[tuple[str, int]]]:
    """user -> (item, when first had), for `new_only`."""
    had = _acts(history).filter(
        (pl.col("event_type") == PURCHASE) | ~(pl.col("event_type") == PURCHASE).any(ignore_nulls=True)
    )
    first = had.group_by("user_id", "item_id").agg(pl.col("ts_ms").min())
    owned = first.group_by("user_id").agg("item_id", "ts_ms").collect()
    return {user_id: list(zip(items, times, strict=True)) for user_id, items, times in owned.iter_rows()}


def _case(row: dict[str, Any]) -> Case:
    return Case(row["user_id"], row["now_ms"], tuple(row["items"]))


def _gathered(cases: Iterable[Case], dropped: Mapping[str, int]) -> Cases:
    ordered = tuple(sorted(cases, key=lambda case: (case.user_id, case.now_ms)))
    return Cases(ordered, {reason: n for reason, n in Counter(dropped).items() if n})
