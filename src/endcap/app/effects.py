"""What slates led to, from the event log itself: exact, over any period, by placement and release.

A slate is shown where the shop sends an `impression` of one of its items. Of the slates shown, those count that led to
a click (a `click` or a `view` that quotes the slate), a cart, a purchase; each once, however many events there are.
Events that quote a slate of which no impression was sent count in `unseen`, and in no rate. What is counted in items
and money is counted for all slates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import polars as pl

from endcap.core.errors import CallerError
from endcap.core.slates import HEAD_CHARS, parse, release_hash
from endcap.core.types import EventType
from endcap.data.store import Store

DAY_MS = 86_400_000
Z = 1.959963984540054  # of a normal distribution, for intervals of 95%
KINDS = {
    EventType.IMPRESSION.value: "shown",
    EventType.CLICK.value: "clicked",
    EventType.VIEW.value: "clicked",
    EventType.ADD_TO_CART.value: "carted",
    EventType.PURCHASE.value: "bought",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of the slates shown, with its 95% interval (Wilson 1927)."""

    rate: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Effect:
    """Of one placement and release. shown, clicked, carted, bought: slates, the last three of those shown.

    unseen: slates that led to something without an impression. ctr, conversion: None where nothing was shown.
    items_clicked and so on: items, each once for its slate. revenue: currency -> price times quantity; an empty name
    where there is none.
    """

    placement: str
    release: str
    shown: int
    clicked: int
    carted: int
    bought: int
    unseen: int
    ctr: Rate | None
    conversion: Rate | None
    items_clicked: int
    items_carted: int
    items_bought: int
    revenue: dict[str, float]


@dataclass(frozen=True, slots=True)
class Effects:
    """since_ms, until_ms: of the events that were read; since_ms is None where all of them were. foreign: events that
    quote a recommendation of another system, or one that is damaged."""

    since_ms: int | None
    until_ms: int
    foreign: int
    effects: tuple[Effect, ...]


def effects(store: Store, releases: Mapping[int, str], *, now_ms: int, days: float | None = None) -> Effects:
    """releases: `slates.release_hash` -> id, of those there are; others are told by their hash, in hex digits. days:
    how far to look back from now; None for the whole log. CallerError for days that are not above zero."""
    if days is not None and not 0 < days < float("inf"):
        raise CallerError(f"{days:g} days were asked for.", where="days", next_step="Ask for a number above zero.")
    since_ms = None if days is None else now_ms - int(days * DAY_MS)
    events = _quoting(store, since_ms, now_ms)
    told = _told(events["slate"].unique(), releases)
    ours = events.join(told, on="slate")
    keys = ["placement", "release"]
    items = ours.unique(["slate", "item_id", "kind"]).group_by(*keys, "kind").len()
    money = (
        ours.filter(pl.col("kind") == "bought")
        .unique(["slate", "item_id"], keep="first", maintain_order=True)
        .with_columns(
            revenue=pl.col("price") * pl.col("quantity").fill_null(1.0), currency=pl.col("currency").fill_null("")
        )
        .drop_nulls("revenue")
        .group_by(*keys, "currency")
        .agg(pl.col("revenue").sum())
    )
    found = _slates(ours, keys)
    made = tuple(_effect(row, items, money) for row in found.sort(keys).iter_rows(named=True))
    return Effects(since_ms, now_ms, events.height - ours.height, made)


def hashes(release_ids: list[str]) -> dict[int, str]:
    """What `effects` wants to know of releases."""
    return {release_hash(release_id): release_id for release_id in release_ids}


def wilson(hits: int, of: int) -> Rate | None:
    """hits / of; None of nothing."""
    if not of:
        return None
    p, z2 = hits / of, Z * Z
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = Z * sqrt(p * (1 - p) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Rate(p, middle - half if hits else 0.0, middle + half if hits < of else 1.0)


def _quoting(store: Store, since_ms: int | None, until_ms: int) -> pl.DataFrame:
    """Events of a period that quote a slate: `slate` (the id without its memory), `item_id`, `kind`, price, quantity,
    currency, in order of seq."""
    rows = store.events().filter(pl.col("recommendation_id").is_not_null(), pl.col("ts_ms") <= until_ms)
    if since_ms is not None:
        rows = rows.filter(pl.col("ts_ms") > since_ms)
    return (
        rows.filter(pl.col("event_type").is_in(list(KINDS)))
        .select(
            pl.when(pl.col("recommendation_id").str.starts_with("r-"))
            .then(pl.col("recommendation_id").str.slice(0, HEAD_CHARS))
            .otherwise(pl.col("recommendation_id"))
            .alias("slate"),
            "item_id",
            pl.col("event_type").replace_strict(KINDS, return_dtype=pl.String).alias("kind"),
            "price",
            "quantity",
            "currency",
        )
        .collect()
    )


def _told(slates: pl.Series, releases: Mapping[int, str]) -> pl.DataFrame:
    """slate, placement, release of the ids that are ours."""
    rows = []
    for slate in slates:
        told = parse(slate)
        if told is not None:
            rows.append((slate, told.placement.value, releases.get(told.release, f"{told.release:08x}")))
    return pl.DataFrame(rows, schema={"slate": pl.String, "placement": pl.String, "release": pl.String}, orient="row")


def _slates(ours: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """By placement and release: slates shown, those of them with an act of each kind, and those never shown."""
    had = {kind: (pl.col("kind") == kind).any() for kind in dict.fromkeys(KINDS.values())}
    each = ours.group_by(*keys, "slate").agg(**had)
    return each.group_by(keys).agg(
        pl.col("shown").sum(),
        *((pl.col("shown") & pl.col(kind)).sum().alias(kind) for kind in ("clicked", "carted", "bought")),
        (~pl.col("shown")).sum().alias("unseen"),
    )


def _effect(row: dict[str, int | str], items: pl.DataFrame, money: pl.DataFrame) -> Effect:
    placement, release = str(row["placement"]), str(row["release"])
    here = (pl.col("placement") == placement) & (pl.col("release") == release)
    counted = {str(kind): int(n) for kind, n in items.filter(here).select("kind", "len").iter_rows()}
    earned = {str(currency): float(much) for currency, much in money.filter(here).select("currency", "revenue").rows()}
    shown, clicked, carted, bought, unseen = (int(row[k]) for k in ("shown", "clicked", "carted", "bought", "unseen"))
    return Effect(
        placement=placement,
        release=release,
        shown=shown,
        clicked=clicked,
        carted=carted,
        bought=bought,
        unseen=unseen,
        ctr=wilson(clicked, shown),
        conversion=wilson(bought, shown),
        items_clicked=counted.get("clicked", 0),
        items_carted=counted.get("carted", 0),
        items_bought=counted.get("bought", 0),
        revenue=dict(sorted(earned.items())),
    )
