"""A made-up shop of any size: planted tastes, three levels of categories, brands, prices, visits.

Legend: i items, u users, s visits, e events, k lines (the narrowest category).

What is planted: a shopper comes back to three lines of one department; within a line an item is followed by the next
in a ring more often than not by chance; a few items sell most; of some departments the same thing is bought again; a
title names the line, so that content tells it. All is drawn in arrays: a million items take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from endcap.core.determinism import rng
from endcap.core.types import Int64Array

START_MS = 1_767_225_600_000  # 1 January 2026, 00:00 UTC
DAY_MS, DAYS = 86_400_000, 180
TASTES, TASTE_SHARES = 3, (0.55, 0.25, 0.12, 0.08)  # the last: any line of the shop
LONGEST, STEPS_ON, AGAIN, ZIPF = 12, 0.45, 0.5, 2.2
COLOURS = ("Black", "White", "Blue", "Green")
MAKES = 7  # product lines of a line of items: brands, which its titles name
QUALIFIERS = (
    "Travel", "Classic", "Organic", "Compact", "Professional", "Kids", "Premium", "Outdoor", "Daily", "Handmade"
)  # fmt: skip
DEPARTMENTS = {
    "Kitchen": "Knife,Frying Pan,Kettle,Toaster,Chopping Board,Blender,"
    "Teapot,Mixing Bowl,Grater,Colander,Whisk,Oven Tray",
    "Garden": "Spade,Watering Can,Hose,Lawn Mower,Flower Pot,Rake,"
    "Hedge Shears,Bird Feeder,Compost Bin,Trellis,Parasol,Seed Tray",
    "Toys": "Puzzle,Teddy Bear,Toy Train,Building Blocks,Doll,Board Game,"
    "Kite,Marbles,Yo-Yo,Toy Car,Card Game,Play Tent",
    "Beauty": "Shampoo,Lipstick,Face Cream,Perfume,Nail Polish,Soap,"
    "Hair Brush,Sunscreen,Mascara,Body Lotion,Bath Salt,Lip Balm",
    "Sports": "Tennis Racket,Football,Yoga Mat,Dumbbell,Running Belt,Bicycle Helmet,"
    "Swim Goggles,Ski Gloves,Jump Rope,Golf Balls,Boxing Pads,Climbing Chalk",
    "Office": "Stapler,Notebook,Fountain Pen,Desk Lamp,Filing Box,Whiteboard,"
    "Calculator,Envelope,Paper Clips,Scissors,Desk Mat,Label Printer",
    "Clothing": "T-Shirt,Jeans,Raincoat,Wool Socks,Scarf,Leather Belt,"
    "Pyjamas,Hoodie,Swimsuit,Gloves,Necktie,Cardigan",
    "Electronics": "Headphones,Phone Charger,Keyboard,Webcam,Loudspeaker,Power Bank,"
    "Memory Card,Router,Monitor,Smart Watch,Microphone,USB Hub",
    "Pets": "Cat Litter,Dog Biscuits,Fish Flakes,Dog Leash,Cat Tree,Bird Seed,"
    "Hamster Wheel,Dog Bed,Cat Food,Aquarium Filter,Rabbit Hay,Puppy Pads",
    "Baby": "Nappies,Baby Wipes,Pacifier,Feeding Bottle,Baby Monitor,Infant Formula,"
    "Stroller,High Chair,Bib,Teething Ring,Baby Blanket,Bath Seat",
    "Pantry": "Olive Oil,Ground Coffee,Green Tea,Dark Chocolate,Spaghetti,Basmati Rice,"
    "Honey,Rolled Oats,Tomato Sauce,Black Pepper,Almonds,Lentils",
    "Tools": "Hammer,Cordless Drill,Tape Measure,Screwdriver,Pliers,Spirit Level,"
    "Handsaw,Wrench,Sandpaper,Paint Roller,Ladder,Toolbox",
}  # fmt: skip
CONSUMED = ("Beauty", "Pets", "Baby", "Pantry")
VIEW, CART, PURCHASE = "view", "add_to_cart", "purchase"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is made. qualifiers: 1 to 10, each 144 lines."""

    items: int
    users: int
    events: int
    qualifiers: int
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Which items are whose: those of line k are starts[k] up to starts[k + 1], best selling first. int64 [k + 1]."""

    starts: Int64Array

    @property
    def sizes(self) -> Int64Array:
        return np.diff(self.starts)


def made(size: Size) -> tuple[pl.DataFrame, pl.DataFrame]:
    """events and items, in columns that `Shop.ingest` reads. The same size gives the same shop."""
    draw = rng(size.seed, f"scale:{size}")
    names = _names(size.qualifiers)
    weights = draw.permutation(1 / np.arange(1, len(names) + 1) ** 0.6)
    cuts = np.floor(np.cumsum(weights / weights.sum()) * (size.items - len(names))).astype(np.int64)
    lines = Lines(np.concatenate([[0], cuts + np.arange(1, len(names) + 1)]))
    lines.starts[-1] = size.items
    items = _items(names, lines, draw)
    return _events(size, names, lines, items, draw), items


def _names(qualifiers: int) -> list[tuple[str, str, str]]:
    """Department, product and line, each of the shop's lines."""
    return [
        (department, noun, f"{qualifier} {noun}")
        for department, nouns in DEPARTMENTS.items()
        for noun in nouns.split(",")
        for qualifier in QUALIFIERS[:qualifiers]
    ]


def _items(names: list[tuple[str, str, str]], lines: Lines, draw: np.random.Generator) -> pl.DataFrame:
    line = np.repeat(np.arange(len(names)), lines.sizes)
    make = draw.integers(MAKES, size=len(line))
    brands = np.array([_word(number) for number in range(len(names) * MAKES)])[line * MAKES + make]
    colours = np.array(COLOURS)[draw.integers(len(COLOURS), size=len(line))]
    level = draw.normal(3.0, 0.8, size=len(names))
    price = np.round(np.exp(level[line] + draw.normal(0, 0.35, size=len(line))), 2)
    of_line = pl.DataFrame(names, schema=["department", "noun", "line"], orient="row")[line]
    return of_line.select(
        item_id=pl.Series(_ids("i", np.arange(len(line)))),
        title=pl.format("{} {}, {}", pl.Series(brands), "line", pl.Series(colours)),
        price=pl.Series(price),
        currency=pl.lit("EUR"),
        categories=pl.concat_list("department", "noun", "line"),
        brand=pl.Series(brands),
        created_ms=pl.Series(START_MS - draw.integers(0, 700, size=len(line)) * DAY_MS),
    )


def _events(
    size: Size, names: list[tuple[str, str, str]], lines: Lines, items: pl.DataFrame, draw: np.random.Generator
) -> pl.DataFrame:
    lengths = _lengths(size.events, draw)
    visits, users = len(lengths), size.users
    active = np.floor(users * draw.random(max(0, visits - users)) ** 1.6).astype(np.int64)
    user = np.concatenate([np.arange(users), active])[:visits]
    line = _lines_visited(user, users, names, draw)
    start = START_MS + (DAYS * DAY_MS * draw.random(visits) ** 0.8).astype(np.int64)
    consumed = np.array([department in CONSUMED for department, _, _ in names])
    again = consumed[line] & (draw.random(visits) < AGAIN)
    rank = np.where(again, _favourite(user, line, lines), _popular(line, lines, draw))
    parts = []
    for step in range(LONGEST):
        at = np.flatnonzero(lengths > step)
        if step:
            on = draw.random(visits) < STEPS_ON
            rank = np.where(on, (rank + 1) % lines.sizes[line], _popular(line, lines, draw))
        parts.append(
            pl.DataFrame(
                {
                    "visit": at,
                    "user": user[at],
                    "item": lines.starts[line[at]] + rank[at],
                    "ts_ms": start[at] + step * 95_000 + draw.integers(0, 30_000, size=len(at)),
                    "event_type": _kinds(at, step, lengths, again, draw),
                }
            )
        )
    return (
        pl.concat(parts)
        .sort("ts_ms", "visit")
        .select(
            event_id=pl.format("e{}", pl.int_range(pl.len())),
            event_type="event_type",
            user_id=pl.format("u{}", "user"),
            item_id=pl.format("i{}", "item"),
            ts_ms="ts_ms",
            session_id=pl.format("v{}", "visit"),
            price=pl.col("item").map_batches(
                lambda item: items["price"].gather(item.cast(pl.UInt32)), return_dtype=pl.Float64
            ),
            currency=pl.lit("EUR"),
        )
    )


def _lengths(events: int, draw: np.random.Generator) -> Int64Array:
    """int64 [s]: acts of each visit, one to `LONGEST`, three on average, adding up to `events` or a little more."""
    found = np.minimum(draw.geometric(1 / 3, size=events // 2), LONGEST)
    return found[: int(np.searchsorted(np.cumsum(found), events)) + 1]


def _lines_visited(
    user: Int64Array, users: int, names: list[tuple[str, str, str]], draw: np.random.Generator
) -> Int64Array:
    """int64 [s]: one of the lines that the shopper comes for, seldom any other."""
    count, in_department = len(names), len(names) // len(DEPARTMENTS)
    home = draw.integers(len(DEPARTMENTS), size=users) * in_department
    tastes = home[:, None] + draw.integers(in_department, size=(users, TASTES))
    choice = np.searchsorted(np.cumsum(TASTE_SHARES), draw.random(len(user)), side="right")
    anywhere = draw.integers(count, size=len(user))
    return np.where(choice < TASTES, tastes[user, np.minimum(choice, TASTES - 1)], anywhere)


def _popular(line: Int64Array, lines: Lines, draw: np.random.Generator) -> Int64Array:
    """int64 [s]: a place in each line, the first ones far more often."""
    return np.floor(lines.sizes[line] * draw.random(len(line)) ** ZIPF).astype(np.int64)


def _favourite(user: Int64Array, line: Int64Array, lines: Lines) -> Int64Array:
    """int64 [s]: the place in a line of what a shopper always takes of it."""
    mixed = (user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ (
        line.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    )
    share = (mixed >> np.uint64(40)).astype(np.float64) / 2**24
    return np.floor(lines.sizes[line] * share**ZIPF).astype(np.int64)


def _kinds(at: Int64Array, step: int, lengths: Int64Array, again: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """What was done: the last act of a visit is mostly a purchase, as is what is always taken."""
    chance = draw.random(len(at))
    ends = lengths[at] == step + 1
    bought = np.where(ends, chance < 0.6, chance < 0.1) | (again[at] & (step == 0))
    return np.where(bought, PURCHASE, np.where(chance > 0.85, CART, VIEW))


def _ids(letter: str, numbers: Int64Array) -> list[str]:
    return [f"{letter}{number}" for number in numbers.tolist()]


def _word(number: int) -> str:
    """A made-up name, another for each number: 0 -> 'Baba', 1 -> 'Bada' ..."""
    found = ""
    for _ in range(3):
        number, place = divmod(number, 40)
        consonant, vowel = divmod(place, 4)
        found = "bdfgklmnrt"[consonant] + "aeio"[vowel] + found
    return found.capitalize()
