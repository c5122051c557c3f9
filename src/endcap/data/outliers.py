"""Bounds beyond which a price or a quantity is an outlier, robustly, within what an item is sold beside.

The scale is logarithmic, the centre the median, the spread 1.4826 x MAD (the standard deviation of a normal with that
median absolute deviation), as in Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (1993). A group is an item's
leaf category; an item without one, as all are without a catalogue, is judged by its own sales alone. In a group of
fewer than 20 rows nothing is called an outlier.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

MAD_TO_SIGMA = 1.4826
MIN_ROWS = 20
# Many groups have hardly any spread (one price, one unit), where every other value would be an outlier. With these
# floors and z = 8, prices within a factor of 7 of the median and quantities up to 54 times it are always let through.
MIN_PRICE_SPREAD = 0.25
MIN_QUANTITY_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Bounds:
    """low, high: Float64 [rows of the frame]; null where a group is too small to tell, or holds nothing beyond them."""

    low: pl.Series
    high: pl.Series


def price_bounds(frame: pl.DataFrame, items: pl.DataFrame | None, z: float) -> Bounds:
    """Both ways: a slipped decimal point makes a price too high or too low. Free items (price 0) are not looked at."""
    bounds = _bounds(frame, items, "price", z, MIN_PRICE_SPREAD)
    free = frame["price"] == 0
    return Bounds(bounds["low"].set(free, None), bounds["high"])


def quantity_bounds(frame: pl.DataFrame, items: pl.DataFrame | None, z: float) -> Bounds:
    """Upwards only, in whole units where the bound is above one: goods by weight may come in very small parts."""
    bounds = _bounds(frame, items, "quantity", z, MIN_QUANTITY_SPREAD)
    return Bounds(pl.repeat(None, frame.height, dtype=pl.Float64, eager=True), bounds["high"])


def _bounds(frame: pl.DataFrame, items: pl.DataFrame | None, column: str, z: float, floor: float) -> pl.DataFrame:
    """low, high: [rows of the frame]."""
    usable = frame.lazy().select("item_id", pl.col(column).alias("value")).filter(pl.col("value") > 0)
    value, log = pl.col("value"), pl.col("value").log()
    spread = (log - log.median()).abs().median() * MAD_TO_SIGMA
    extremes = {"least": value.min(), "most": value.max()}
    groups = _grouped(usable, items).group_by("group").agg(pl.len(), centre=log.median(), spread=spread, **extremes)
    reach = z * pl.col("spread").clip(lower_bound=floor)
    low, high = (pl.col("centre") - reach).exp(), (pl.col("centre") + reach).exp()
    if column == "quantity":
        high = pl.when(high > 1).then(high.floor()).otherwise(high)
    bounds = {"low": low, "high": high}
    known = groups.filter(pl.col("len") >= MIN_ROWS).select("group", "least", "most", **bounds)
    beyond = (pl.col("least") < pl.col("low")) | (pl.col("most") > pl.col("high"))
    crossed = known.filter(beyond).select("group", "low", "high").collect()
    if crossed.is_empty():  # as it mostly is: then nothing has to be looked up for each row
        nothing = pl.repeat(None, frame.height, dtype=pl.Float64, eager=True)
        return pl.DataFrame({"low": nothing, "high": nothing})
    rows = _grouped(frame.lazy().select("item_id"), items)
    found = rows.join(crossed.lazy(), on="group", how="left", nulls_equal=True, maintain_order="left")
    return found.select("low", "high").collect()


def _grouped(rows: pl.LazyFrame, items: pl.DataFrame | None) -> pl.LazyFrame:
    """The rows with the group of each one's item, in their order."""
    if items is None:
        return rows.with_columns(group="item_id")
    leaf = items.lazy().select("item_id", group=pl.coalesce(pl.col("categories").list.last(), "item_id"))
    return rows.join(leaf.unique("item_id", keep="last"), on="item_id", how="left", maintain_order="left")
