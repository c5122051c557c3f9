"""The catalogue as arrays, in the release's order of items.

Legend: i items. Codes number the distinct values of a column; UNKNOWN (-1) stands for a missing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl

from endcap.core.tables import ITEMS, conform
from endcap.core.types import Availability, Float32Array, Int32Array, Int64Array
from endcap.features.ids import UNKNOWN, Vocabulary

Worded = Literal["title", "brand", "categories", "description"]
NAMED: tuple[Worded, ...] = ("title", "categories")


@dataclass(frozen=True, slots=True, eq=False)
class ItemTable:
    """top, middle, leaf: int32 [i], codes of the category path's first, second and last step, each with the steps
    before it. brand: int32 [i]. line: int32 [i], a brand within a leaf category. price: float32 [i], NaN where unknown.
    created_ms: int64 [i], 0 where unknown.
    """

    ids: Vocabulary
    frame: pl.DataFrame
    top: Int32Array
    middle: Int32Array
    leaf: Int32Array
    brand: Int32Array
    line: Int32Array
    price: Float32Array
    created_ms: Int64Array

    @classmethod
    def build(cls, catalogue: pl.DataFrame, extra_ids: list[str] | None = None) -> ItemTable:
        """From canonical items, plus ids that occur in events only. Those get an empty description, and where there is
        a catalogue they are hidden: the shop does not say that it sells them."""
        known = conform(catalogue, ITEMS)
        if extra_ids:
            strangers = conform(
                pl.DataFrame({"item_id": extra_ids}).join(known, on="item_id", how="anti"), ITEMS
            ).with_columns(availability=pl.lit(Availability.HIDDEN.value if len(known) else None, pl.String))
            known = pl.concat([known, strangers])
        frame = known.with_columns(
            pl.col("title", "description").fill_null(""),
            pl.col("attributes").fill_null("{}"),
            pl.col("categories", "images", "audio").fill_null([]),
            pl.col("availability").fill_null("in_stock"),
        ).sort("item_id")
        path = pl.col("categories").list
        return cls(
            Vocabulary(frame["item_id"].to_list()),
            frame,
            _codes(frame, path.head(1).list.join("\x1f")),
            _codes(frame, path.head(2).list.join("\x1f")),
            _codes(frame, path.join("\x1f")),
            _codes(frame, pl.col("brand")),
            _codes(frame, pl.concat_str(path.join("\x1f"), pl.col("brand"), separator="\x1e")),
            frame["price"].cast(pl.Float32).fill_null(float("nan")).to_numpy(),
            frame["created_ms"].fill_null(0).to_numpy(),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def titles(self) -> list[str]:
        """What a shopper reads for each item; the id where there is no title."""
        return (
            self.frame.select(pl.when(pl.col("title") == "").then(pl.col("item_id")).otherwise(pl.col("title")))
            .to_series()
            .to_list()
        )

    def texts(self, fields: Sequence[Worded] = NAMED) -> list[str]:
        """Those fields of each item in words, one after the other; what is empty is passed over."""
        said = {name: pl.col(name) for name in get_args(Worded)} | {"categories": pl.col("categories").list.join(", ")}
        parts = [pl.when(said[name].str.len_bytes() > 0).then(said[name]) for name in fields]
        text = pl.concat_str(parts, separator=". ", ignore_nulls=True).fill_null("").str.strip_chars(". ")
        return self.frame.select(text).to_series().to_list()

    def save(self, path: Path) -> None:
        self.frame.write_parquet(path)

    @classmethod
    def load(cls, path: Path) -> ItemTable:
        return cls.build(pl.read_parquet(path))


def _codes(frame: pl.DataFrame, value: pl.Expr) -> Int32Array:
    """Dense codes of a text expression in the order of its values; UNKNOWN for null and empty."""
    texts = frame.select(pl.when(value.str.len_bytes() > 0).then(value)).to_series()
    ranks = texts.rank("dense").cast(pl.Int32) - 1
    return ranks.fill_null(UNKNOWN).to_numpy().astype(np.int32)
