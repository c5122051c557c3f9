"""The catalogue as arrays, in the release's order of items.

Legend: i items. Codes number the distinct values of a column; UNKNOWN (-1) stands for a missing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import polars as pl

from endcap.core.tables import ITEMS, conform
from endcap.core.types import Availability, Float32Array, Int32Array, Int64Array, Item
from endcap.features.ids import UNKNOWN, Vocabulary

Worded = Literal["title", "brand", "categories", "description"]
HIGHEST = float(np.finfo(np.float32).max)  # prices are kept, and compared, in this precision
NAMED: tuple[Worded, ...] = ("title", "categories")


_PATH = pl.col("categories").list
CODED = {  # column of codes -> the text that is coded
    "top": _PATH.head(1).list.join("\x1f"),
    "middle": _PATH.head(2).list.join("\x1f"),
    "leaf": _PATH.join("\x1f"),
    "brand": pl.col("brand"),
    "line": pl.concat_str(_PATH.join("\x1f"), pl.col("brand"), separator="\x1e"),
}


@dataclass(frozen=True, slots=True, eq=False)
class ItemTable:
    """top, middle, leaf: int32 [i], codes of the category path's first, second and last step, each with the steps
    before it. brand: int32 [i]. line: int32 [i], a brand within a leaf category. price: float32 [i], NaN where unknown.
    created_ms: int64 [i], 0 where unknown. changed: items as they are now where `put` changed them, by position; the
    frame keeps what was.
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
    changed: dict[int, Item] = field(default_factory=dict)
    _codes_by_text: dict[str, dict[str, int]] = field(default_factory=dict)

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
        frame = _filled(known).sort("item_id")
        codes: dict[str, Any] = {level: _codes(frame, text) for level, text in CODED.items()}
        return cls(
            ids=Vocabulary(frame["item_id"].to_list()),
            frame=frame,
            **codes,
            price=np.array(frame["price"].cast(pl.Float32).fill_null(float("nan"))),
            created_ms=np.array(frame["created_ms"].fill_null(0)),
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
        return _texts(self.frame, fields)

    def categories_of(self, item: int) -> Sequence[str]:
        """The category path of one item."""
        changed = self.changed.get(item)
        path: Sequence[str] = self.frame["categories"][item].to_list() if changed is None else changed.categories
        return path

    def brand_code(self, name: str) -> int:
        """UNKNOWN for a brand that no item has."""
        return self._codes_of("brand").get(name, UNKNOWN)

    def attributes_of(self, items: Int32Array) -> list[dict[str, str]]:
        """[n]: of int32 [n]."""
        found = [msgspec.json.decode(text) for text in self.frame["attributes"].gather(items).to_list()]
        for place, item in enumerate(items.tolist()) if self.changed else ():
            if (changed := self.changed.get(item)) is not None:
                found[place] = changed.attributes
        return found

    def widened(self, room: int) -> ItemTable:
        """The same with more blank rows at the end. The ids are shared; the arrays are its own, to `put` into."""
        blank = _filled(conform(pl.DataFrame({"item_id": [""] * room}), ITEMS))
        codes: dict[str, Any] = {
            level: np.append(getattr(self, level), np.full(room, UNKNOWN, np.int32)) for level in CODED
        }
        return ItemTable(
            ids=self.ids,
            frame=pl.concat([self.frame, blank]),
            **codes,
            price=np.append(self.price, np.full(room, np.nan, np.float32)),
            created_ms=np.append(self.created_ms, np.zeros(room, np.int64)),
            changed=dict(self.changed),
        )

    def put(self, item: Item) -> int:
        """Take over what an item is now, a new one into a blank row; returns its position. ValueError where none is
        blank."""
        place = self.ids.position(item.item_id)
        if place == UNKNOWN and len(self.ids) >= self.frame.height:
            raise ValueError("there is no room for another item")
        place = len(self.ids) if place == UNKNOWN else place
        for level, text in _coded(item).items():
            getattr(self, level)[place] = self._code(level, text)
        self.price[place] = price_of(item)
        self.created_ms[place] = item.created_ms or 0
        self.changed[place] = item
        self.ids.add(item.item_id)
        return place

    def renamed(self, items: Sequence[Item]) -> list[Item]:
        """Of known items those that are called or sorted otherwise than here; price and stock do not count."""
        places = self.ids.positions(item.item_id for item in items)
        rows = self.frame.select("title", "brand", "categories", "attributes")[places].rows()
        return [
            item
            for place, item, row in zip(places.tolist(), items, rows, strict=True)
            if (_said(self.changed[place]) if place in self.changed else _said_by(row)) != _said(item)
        ]

    def _code(self, level: str, text: str | None) -> int:
        """The code of a category path or a brand; a fresh one for what is new."""
        if not text:
            return UNKNOWN
        codes = self._codes_of(level)
        return codes.setdefault(text, max(codes.values(), default=UNKNOWN) + 1)

    def _codes_of(self, level: str) -> dict[str, int]:
        """text -> code, of a column of codes."""
        codes = self._codes_by_text.get(level)
        if codes is None:
            texts = self.frame.select(CODED[level]).to_series()
            firsts = texts.arg_unique().to_numpy()
            held = zip(texts.gather(firsts).to_list(), getattr(self, level)[firsts].tolist(), strict=True)
            codes = self._codes_by_text[level] = {text: code for text, code in held if code != UNKNOWN}
        return codes

    def save(self, path: Path) -> None:
        self.frame.write_parquet(path)

    @classmethod
    def load(cls, path: Path) -> ItemTable:
        return cls.build(pl.read_parquet(path))


def price_of(item: Item) -> float:
    """Within float32; NaN where it is unknown."""
    return np.nan if item.price is None else min(item.price, HIGHEST)


def texts_of(items: Sequence[Item], fields: Sequence[Worded] = NAMED) -> list[str]:
    """As `ItemTable.texts`, of items that are in no table."""
    return _texts(_frame_of(items), fields)


def _texts(frame: pl.DataFrame, fields: Sequence[Worded]) -> list[str]:
    said = {name: pl.col(name) for name in get_args(Worded)} | {"categories": pl.col("categories").list.join(", ")}
    parts = [pl.when(said[name].str.len_bytes() > 0).then(said[name]) for name in fields]
    text = pl.concat_str(parts, separator=". ", ignore_nulls=True).fill_null("").str.strip_chars(". ")
    return frame.select(text).to_series().to_list()


def _coded(item: Item) -> dict[str, str | None]:
    """The texts that `CODED` gives for a row."""
    path = item.categories
    leaf = "\x1f".join(path)
    texts = ("\x1f".join(path[:1]), "\x1f".join(path[:2]), leaf, item.brand, item.brand and f"{leaf}\x1e{item.brand}")
    return dict(zip(CODED, texts, strict=True))


def _said(item: Item) -> tuple[object, ...]:
    return (item.title, item.brand, tuple(item.categories), item.attributes)


def _said_by(row: tuple[Any, ...]) -> tuple[object, ...]:
    title, brand, categories, attributes = row
    return (title, brand, tuple(categories), msgspec.json.decode(attributes))


def _frame_of(items: Sequence[Item]) -> pl.DataFrame:
    """Without their attributes."""
    rows = [msgspec.to_builtins(item) | {"attributes": "{}"} for item in items]
    return _filled(conform(pl.DataFrame(rows), ITEMS))


def _filled(items: pl.DataFrame) -> pl.DataFrame:
    """Canonical items with the defaults of `Item` for what is missing."""
    return items.with_columns(
        pl.col("title", "description").fill_null(""),
        pl.col("attributes").fill_null("{}"),
        pl.col("categories", "images", "audio").fill_null([]),
        pl.col("availability").fill_null("in_stock"),
    )


def _codes(frame: pl.DataFrame, value: pl.Expr) -> Int32Array:
    """Dense codes of a text expression in the order of its values; UNKNOWN for null and empty."""
    texts = frame.select(pl.when(value.str.len_bytes() > 0).then(value)).to_series()
    ranks = texts.rank("dense").cast(pl.Int32) - 1
    return ranks.fill_null(UNKNOWN).to_numpy().astype(np.int32)
