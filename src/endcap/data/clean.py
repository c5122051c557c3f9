"""Cleaning rules for typed events. Each has a name, counts what it did, and returns what it refused.

They run in the order of `RULES`. A rule refuses rows (they go to quarantine), changes cells (counted), or does nothing;
none drops a row. Everything is a polars expression; no rule runs Python per row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl
from pydantic import Field, field_validator

from endcap.core import tables
from endcap.core.section import Section
from endcap.core.types import EventType
from endcap.data.outliers import Bounds, price_bounds, quantity_bounds
from endcap.data.quarantine import REASON, RULE
from endcap.data.repeats import is_first, is_shared

DOUBLED = [kind.value for kind in (EventType.VIEW, EventType.CLICK, EventType.ADD_TO_CART, EventType.IMPRESSION)]
PRICED = [EventType.PURCHASE.value, EventType.ADD_TO_CART.value]
COUNTED = [*PRICED, EventType.REMOVE_FROM_CART.value]
MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS


class CleanConfig(Section):
    """What counts as dirt in a log of events, and what is done about it."""

    skip: tuple[str, ...] = Field(default=(), description="Names of rules to leave out.")
    near_duplicate_s: float = Field(default=2.0, ge=0, description="The same act again within this time is one act.")
    unknown_item: Literal["quarantine", "keep"] = Field(
        default="quarantine", description="Events on items that are not in the catalogue, if one is given."
    )
    outlier_z: float = Field(default=8.0, gt=0, description="Robust z (by MAD, log scale) beyond which a value is one.")
    outliers: Literal["clip", "quarantine", "keep"] = Field(
        default="clip", description="clip: to the bound, counted. keep: counted only."
    )
    bot_events_per_minute: int = Field(default=120, gt=0, description="More acts at distinct times: no human.")
    bot_events_per_day: int = Field(default=5000, gt=0, description="More acts at distinct times: no human.")

    @field_validator("skip")
    @classmethod
    def _known(cls, skip: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in skip if name not in RULES]
        if unknown:
            raise ValueError(f"{unknown} are no rules of cleaning; there are: {', '.join(RULES)}")
        return skip


@dataclass(frozen=True, slots=True)
class RuleResult:
    """frame and refused together hold the rows that came in; refused has `rule` and `reason` besides.

    count: rows refused or changed (or, with a policy of keep, only found). changed: column -> cells filled or clipped.
    """

    frame: pl.DataFrame
    refused: pl.DataFrame | None = None
    count: int = 0
    changed: dict[str, int] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """frame.height + refused.height is the number of rows that came in. refused: rows with `rule` and `reason`."""

    frame: pl.DataFrame
    refused: pl.DataFrame
    counts: dict[str, int]
    fills: dict[str, int]
    clips: dict[str, int]
    notes: tuple[str, ...]


Rule = Callable[[pl.DataFrame, CleanConfig, pl.DataFrame | None], RuleResult]


def clean_events(frame: pl.DataFrame, items: pl.DataFrame | None, config: CleanConfig) -> Cleaned:
    """Run every rule in order. frame: conforms to `tables.EVENTS`; further columns (`line`, `row`) are carried."""
    refused: list[pl.DataFrame] = [_refuse(frame.clear(), "", pl.lit(""))]
    counts: dict[str, int] = {}
    fills: dict[str, int] = {}
    clips: dict[str, int] = {}
    notes: list[str] = []
    for name, rule in RULES.items():
        if name in config.skip:
            continue
        result = rule(frame, config, items)
        frame, counts[name] = result.frame, result.count
        if result.refused is not None:
            refused.append(result.refused)
        (clips if name.endswith("outlier") else fills).update(result.changed or {})
        notes += [f"{name}: {result.note}"] if result.note else []
    return Cleaned(frame, pl.concat(refused), counts, fills, clips, tuple(notes))


def exact_duplicate(frame: pl.DataFrame, config: CleanConfig, items: pl.DataFrame | None) -> RuleResult:
    """The same event_id again; or all else the same under another id. The first stays.

    Purchases with ids of their own stay even if all else is the same: a basket may list one product twice.
    """
    repeated = ~is_first(frame["event_id"])
    by_id = _split(frame, repeated, "exact_duplicate", pl.format("The event '{}' came before.", "event_id"))
    content = [name for name in tables.names(tables.EVENTS) if name != "event_id"]
    acts = by_id.frame.lazy().with_row_index("at").filter(pl.col("event_type") != EventType.PURCHASE.value)
    # Comparing whole rows is dear; few share even these three, and equal values have equal hashes.
    keyed = acts.select("at", key=pl.struct("user_id", "item_id", "ts_ms").hash())
    at, key = keyed.collect()
    alike = at.filter(is_shared(key))
    copies = alike.filter(~by_id.frame[alike].select(content).to_struct().is_first_distinct())
    reason = pl.lit("The same event came before under another event_id.")
    by_content = _split(by_id.frame, _mask(by_id.frame.height, copies), "exact_duplicate", reason)
    parts = [result.refused for result in (by_id, by_content) if result.refused is not None]
    return RuleResult(by_content.frame, pl.concat(parts) if parts else None, by_id.count + by_content.count)


def bots(frame: pl.DataFrame, config: CleanConfig, items: pl.DataFrame | None) -> RuleResult:
    """Users who act faster than people can: all their events of that type go.

    Acts are counted by distinct times; purchases by distinct orders, and not at all without a session_id, so that a
    big basket is one act however many lines it has.
    """
    purchase = pl.col("event_type") == EventType.PURCHASE.value
    who = ["user_id", "event_type"]
    countable = frame.lazy().filter(~purchase | pl.col("session_id").is_not_null())
    faulty: list[pl.LazyFrame] = []
    for span_ms, allowed in ((MINUTE_MS, config.bot_events_per_minute), (DAY_MS, config.bot_events_per_day)):
        slot = (pl.col("ts_ms") // span_ms).alias("slot")
        slots = countable.select(pl.struct(*who, slot).hash().alias("key"))
        crowded = slots.group_by("key").len().filter(pl.col("len") > allowed).collect()["key"]
        moment = pl.when(purchase).then("session_id").otherwise(pl.col("ts_ms").cast(pl.String)).alias("moment")
        acts = countable.filter(pl.struct(*who, slot).hash().is_in(crowded.implode())).group_by(*who, slot)
        paced = acts.agg(moment.n_unique().alias("acts"))
        faulty.append(paced.filter(pl.col("acts") > allowed).select(who))
    users = pl.concat(faulty).unique().collect()
    if users.is_empty():
        return RuleResult(frame)
    hit = frame.with_row_index("at").join(users, on=who, how="semi")["at"]
    reason = pl.format("The user '{}' has more {} events in a minute or a day than a person can make.", *who)
    result = _split(frame, _mask(frame.height, hit), "bots", reason)
    note = f"{users['user_id'].n_unique()} users act faster than people can"
    return RuleResult(result.frame, result.refused, result.count, note=note)


def near_duplicate(frame: pl.DataFrame, config: CleanConfig, items: pl.DataFrame | None) -> RuleResult:
    """The same act on the same item within `near_duplicate_s` of the one before: a double click, a page sent twice.

    Holds for views, clicks, impressions (of the same placement and slate) and additions to the cart. A purchase counts
    only if order, quantity and price are the same too and the times differ: a basket that lists one product twice
    carries one time, an order sent twice carries two.
    """
    purchase = pl.col("event_type") == EventType.PURCHASE.value
    ordered = purchase & pl.col("session_id").is_not_null()
    order = [pl.when(purchase).then(pl.col(name)).alias(name) for name in ("session_id", "quantity", "price")]
    keys = [*map(pl.col, ("user_id", "item_id", "event_type", "placement", "recommendation_id")), *order]
    acts = frame.lazy().with_row_index("at").filter(pl.col("event_type").is_in(DOUBLED) | ordered)
    timed = acts.select("at", "ts_ms", purchase.alias("purchase"), key=pl.struct(keys).hash())
    sorted_acts = timed.filter(pl.col("key").is_duplicated()).sort("key", "ts_ms", "at")
    gap = pl.col("ts_ms") - pl.col("ts_ms").shift(1)
    close = (gap <= config.near_duplicate_s * 1000) & (~pl.col("purchase") | (gap > 0))
    twice = (pl.col("key") == pl.col("key").shift(1)) & close
    pairs = sorted_acts.select("at", before=pl.col("at").shift(1), twice=twice).filter("twice").collect()
    # Equal hashes are not proof: the few pairs found are compared in full.
    first, second = (frame[pairs[at]].select(keys) for at in ("before", "at"))
    same = pl.repeat(True, pairs.height, eager=True)
    for name in first.columns:
        same &= first[name].eq_missing(second[name])
    hit = pairs["at"].filter(same)
    reason = pl.format("The same {} came less than {} s before.", "event_type", pl.lit(config.near_duplicate_s))
    return _split(frame, _mask(frame.height, hit), "near_duplicate", reason)


def unknown_item(frame: pl.DataFrame, config: CleanConfig, items: pl.DataFrame | None) -> RuleResult:
    """Events on items the catalogue does not have. Nothing to check without a catalogue."""
    if items is None:
        return RuleResult(frame, note="not checked: no catalogue was given")
    unknown = frame["item_id"].is_not_null() & ~frame["item_id"].is_in(items["item_id"].implode())
    if config.unknown_item == "keep":
        return RuleResult(frame, count=int(unknown.sum()), note="kept by policy")
    return _split(frame, unknown, "unknown_item", pl.format("The item '{}' is not in the catalogue.", "item_id"))


def missing_values(frame: pl.DataFrame, config: CleanConfig, items: pl.DataFrame | None) -> RuleResult:
    """Fill the price of purchases and cart additions from the item's median, then from the catalogue; the quantity of
    those and of removals with 1. Prices that neither knows stay missing.
    """
    bare = pl.col("price").is_null() & pl.col("event_type").is_in(PRICED)
    single = pl.col("quantity").is_null() & pl.col("event_type").is_in(COUNTED)
    prices_missing, quantities_missing = frame.select(bare.sum().alias("bare"), single.sum().alias("single")).row(0)
    changed: dict[str, int] = {}
    if prices_missing:
        filled = _with_price(frame, bare, items)
        changed["price"] = frame["price"].null_count() - filled["price"].null_count()
        frame = filled
    if quantities_missing:
        changed["quantity"] = quantities_missing
        frame = frame.with_columns(quantity=pl.when(single).then(1.0).otherwise("quantity"))
    left = prices_missing - changed.get("price", 0)
    note = f"{left} purchases or cart additions have no price that could be known" if left else ""
    return RuleResult(frame, None, sum(changed.values()), {k: v for k, v in changed.items() if v}, note)


def price_outlier(frame: pl.DataFrame, config: CleanConfig, items: pl.DataFrame | None) -> RuleResult:
    """Prices far from what the item's leaf category sells at (`outliers.price_bounds`)."""
    return _outlier(frame, config, price_bounds(frame, items, config.outlier_z), "price")


def quantity_outlier(frame: pl.DataFrame, config: CleanConfig, items: pl.DataFrame | None) -> RuleResult:
    """Quantities far above what the item's leaf category sells in (`outliers.quantity_bounds`)."""
    return _outlier(frame, config, quantity_bounds(frame, items, config.outlier_z), "quantity")


RULES: dict[str, Rule] = {
    "exact_duplicate": exact_duplicate,
    "bots": bots,
    "near_duplicate": near_duplicate,
    "unknown_item": unknown_item,
    "missing_values": missing_values,
    "price_outlier": price_outlier,
    "quantity_outlier": quantity_outlier,
}


def _outlier(frame: pl.DataFrame, config: CleanConfig, bounds: Bounds, column: str) -> RuleResult:
    value = frame[column]
    outside = ((value < bounds.low) | (value > bounds.high)).fill_null(False)
    count = int(outside.sum())
    if not count or config.outliers == "keep":
        return RuleResult(frame, count=count, note="kept by policy" if count else "")
    if config.outliers == "quarantine":
        reason = pl.format(f"The {column} {{}} is far from what its category sells at.", column)
        return _split(frame, outside, f"{column}_outlier", reason)
    inside = pl.max_horizontal(pl.min_horizontal(value, bounds.high), bounds.low)
    clipped = frame.with_columns(pl.when(outside).then(inside).otherwise(column).alias(column))
    return RuleResult(clipped, None, count, {column: count})


def _with_price(frame: pl.DataFrame, bare: pl.Expr, items: pl.DataFrame | None) -> pl.DataFrame:
    known = frame.lazy().filter(pl.col("price").is_not_null()).group_by("item_id").agg(usual=pl.col("price").median())
    listed = _listed_prices(items)
    return (
        frame.lazy()
        .join(known, on="item_id", how="left", maintain_order="left")
        .join(listed, on="item_id", how="left", maintain_order="left")
        .with_columns(price=pl.when(bare).then(pl.coalesce("usual", "listed")).otherwise("price"))
        .drop("usual", "listed")
        .collect()
    )


def _listed_prices(items: pl.DataFrame | None) -> pl.LazyFrame:
    if items is None:
        return pl.LazyFrame(schema={"item_id": pl.String, "listed": pl.Float64})
    return items.lazy().select("item_id", listed="price").unique("item_id", keep="last")


def _split(frame: pl.DataFrame, hit: pl.Series, name: str, reason: pl.Expr) -> RuleResult:
    count = int(hit.sum())
    if not count:
        return RuleResult(frame)
    return RuleResult(frame.filter(~hit), _refuse(frame.filter(hit), name, reason), count)


def _refuse(rows: pl.DataFrame, name: str, reason: pl.Expr) -> pl.DataFrame:
    return rows.with_columns(pl.lit(name).alias(RULE), reason.alias(REASON))


def _mask(height: int, positions: pl.Series) -> pl.Series:
    mask = pl.repeat(False, height, eager=True)
    return mask.scatter(positions, True) if len(positions) else mask
