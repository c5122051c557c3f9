"""Examples from a shop's own log and catalogue, for tuning on what its shoppers did next.

The log is parted by time, at the moments at which training parts it. What the shop's own validation asks, such as
whether a cross-encoder helps (`judging`), is left out here, so that no weights were learned from it or chosen by it:
they are chosen by the last acts of the shop's training part, and measured on its test part. An anchor is what a shopper
had bought or looked at last, as titles; the candidate is what came next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from endcap.app.run import learnable
from endcap.app.tasks import successes
from endcap.core.determinism import rng
from endcap.core.errors import CallerError, DataError
from endcap.core.types import Int64Array
from endcap.features.items import ItemTable
from endcap.features.sessions import owned
from endcap.models.finetune.config import FinetuneConfig

if TYPE_CHECKING:
    from endcap.app.runtime import Shop

ASKED = "asked"  # acts that the shop's validation asks for, which no tuning reads
PARTS = ("train", "valid", ASKED, "test")  # in the order of time
CHOSEN_BY = 0.1  # of the training part, in place of the shop's validation
REMEMBERED = 3  # texts of an anchor
NEGATIVES = 4  # candidates of an interest or ranking example that were not taken, drawn by popularity
KNOWN = 50
FROM_A_SHOP = ("pairs", "interest", "ranking", "masked", "imitate")


def examples_of(shop: Shop, config: FinetuneConfig) -> pl.DataFrame:
    """The table for a task, from everything recorded. CallerError for tasks whose labels a log does not hold;
    DataError where there is too little, or no text."""
    if config.task.kind not in FROM_A_SHOP:
        raise CallerError(
            f"A shop's log holds no labels for {config.task.kind}.",
            where="task.kind",
            next_step=f"Bring a table, or choose one of: {', '.join(FROM_A_SHOP)}.",
        )
    log = owned(shop.store.events())
    learnable(log, shop.folder)
    ids = log.select(pl.col("item_id").drop_nulls().unique()).collect().to_series().to_list()
    table = ItemTable.build(shop.store.items(), ids)
    # A judge reads what names an item, and so does its cross-encoder here.
    crossed = config.task.kind in ("interest", "ranking") and config.task.architecture == "cross"
    texts = table.texts() if crossed else table.texts(shop.config.content.reads)
    if not any(texts):
        raise DataError(
            "The catalogue has no text to tune on.", where=str(shop.folder), next_step="Give the items names."
        )
    if config.task.kind in ("masked", "imitate"):
        return pl.DataFrame({"text": sorted({text for text in texts if text})})
    told = next_items(successes(log), dict(zip(table.ids.ids, texts, strict=True)), config.split.shares)
    rows = told if config.task.kind == "pairs" else with_negatives(told, config.train.seed)
    return rows.filter(pl.col("part") != ASKED)


def next_items(bought: pl.DataFrame, texts: dict[str, str], shares: tuple[float, float, float]) -> pl.DataFrame:
    """anchor, candidate, known, group, segment, ts_ms and part of every act that followed another of its user.

    bought: user_id, item_id, ts_ms. shares: of all acts, in the order of time, that training, the shop's validation and
    the test hold; the last of training are "valid". known: the latest of what its user had acted on when the part
    ended, so that training hears nothing of later parts. segment: how many acts came before, so that a run shows where
    text helps most.
    """
    borders = _borders(bought["ts_ms"].to_numpy(), shares)
    told = (
        bought.with_columns(text=pl.col("item_id").replace_strict(texts, default="", return_dtype=pl.String))
        .filter(pl.col("text") != "")
        .sort("user_id", "ts_ms", maintain_order=True)
    )
    rows = []
    for user, acts in told.group_by("user_id", maintain_order=True):
        seen, times = acts["text"].to_list(), acts["ts_ms"].to_numpy()
        ends = [*np.searchsorted(times, borders), len(seen)]
        known = [list(dict.fromkeys(seen[:end]))[-KNOWN:] for end in ends]
        parts = np.searchsorted(borders, times, side="right")
        for place in range(1, len(seen)):
            if seen[place] not in seen[:place]:
                anchor, part = seen[max(0, place - REMEMBERED) : place], parts[place]
                told_of = (str(user[0]), int(times[place]), length_name(place), PARTS[part])
                rows.append((anchor, seen[place], known[part], *told_of))
    if not rows:
        raise DataError("No shopper acted on a second product that has text.", where="the log")
    return pl.DataFrame(
        rows, schema=["anchor", "candidate", "known", "group", "ts_ms", "segment", "part"], orient="row"
    )


def _borders(ts_ms: Int64Array, shares: tuple[float, float, float]) -> Int64Array:
    """int64 [3]: the first moments of PARTS after the first one; those of the shop's validation and test are as in
    `data.split.split_by_time`, or after the last act where a part is to have none."""
    times = np.append(np.sort(ts_ms), ts_ms.max() + 1)
    learned, until, test = shares[0], shares[0], shares[0] + shares[1]
    if shares[1]:
        learned *= 1 - CHOSEN_BY
    places = [int(len(ts_ms) * share + 1e-9) for share in (learned, until, test)]
    return times[np.minimum(places, len(ts_ms))]


def with_negatives(told: pl.DataFrame, seed: int, count: int = NEGATIVES) -> pl.DataFrame:
    """Each act as a list of its own: the candidate that was taken (label 1) and `count` that were not (0), drawn as
    often as they are taken, none of them anything that the shopper had acted on when the part ended."""
    draw = rng(seed, "finetune negatives")
    taken = told.filter(pl.col("part") == "train")["candidate"].to_list() or told["candidate"].to_list()
    own: dict[tuple[str, str], set[str]] = {}
    for row in told.iter_rows(named=True):
        for part in PARTS[PARTS.index(row["part"]) :]:
            own.setdefault((row["group"], part), set()).update(row["anchor"], [row["candidate"]])
    rows = []
    for number, row in enumerate(told.iter_rows(named=True)):
        known, drawn = own[row["group"], row["part"]], list[str]()
        for place in draw.integers(len(taken), size=10 * count):
            if len(drawn) < count and taken[place] not in known and taken[place] not in drawn:
                drawn.append(taken[place])
        for candidate, label in [(row["candidate"], 1.0), *((text, 0.0) for text in drawn)]:
            rows.append((row["anchor"], candidate, label, number, row["ts_ms"], row["segment"], row["part"]))
    columns = ["anchor", "candidate", "label", "group", "ts_ms", "segment", "part"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def length_name(acts: int) -> str:
    """A history's length as a segment's name."""
    return next((name for most, name in ((1, "1"), (3, "2 to 3"), (7, "4 to 7")) if acts <= most), "8 and more")
