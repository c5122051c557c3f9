"""The table that a task learns from: read, checked row by row, parted into training, validation and test.

Columns by task, beside the optional `part` (train, valid, test), `ts_ms`, `group` and `segment` of every task:

    classification   text, label [, other]     label: one name, or several as a list or apart by |
    rating           text, rating [, other]
    interest         anchor, candidate, label (0 or 1)
    ranking          anchor, candidate, label (a number, more is better), group
    pairs            anchor, candidate [, known]    known: further texts that are no honest negatives for this anchor
    masked, imitate  text

An anchor may be a list of texts, oldest first, such as a shopper's history; in CSV its texts stand apart by |.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from endcap.core.determinism import rng
from endcap.core.errors import CallerError, DataError
from endcap.models.finetune.config import FinetuneConfig, SplitConfig, TaskConfig, TaskKind

NEEDED: dict[TaskKind, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "rating": ("text", "rating"),
    "interest": ("anchor", "candidate", "label"),
    "ranking": ("anchor", "candidate", "label", "group"),
    "pairs": ("anchor", "candidate"),
    "masked": ("text",),
    "imitate": ("text",),
}
OPTIONAL = ("other", "known", "part", "ts_ms", "group", "segment")
LISTS = {"anchor", "known"}
NUMBERS = {"label", "rating"}
PARTS = ("train", "valid", "test")
READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
    ".parquet": pl.read_parquet,
}
FEWEST = 10
QUANTILES = 10  # of ratings


@dataclass(frozen=True, slots=True)
class Examples:
    """train, valid, test: rows in their order in the data, with `row`, their number there from 1. refused: with
    `reason`."""

    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame
    refused: pl.DataFrame


def read_examples(path: Path, config: FinetuneConfig) -> Examples:
    """From CSV, JSON lines or Parquet. Raises CallerError or DataError where nothing can be learned from the file."""
    ending = path.suffix.lower()
    if ending not in READERS:
        raise CallerError(
            f"{ending or 'No ending'} is no kind of table.",
            where=str(path),
            next_step="Bring .csv, .jsonl or .parquet.",
        )
    if not path.is_file():
        raise CallerError("There is no such file.", where=str(path))
    try:
        frame = READERS[ending](path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"The table cannot be read: {str(error).splitlines()[0]}", where=str(path)) from error
    return part_examples(frame, config, where=str(path))


def part_examples(frame: pl.DataFrame, config: FinetuneConfig, *, where: str = "the examples") -> Examples:
    """As `read_examples`, from a table at hand."""
    named = _named(frame, config, where).with_row_index("row", offset=1)
    try:
        checked = _checked(named, config.task)
    except pl.exceptions.PolarsError as error:
        kinds = ", ".join(f"{name}: {kind}" for name, kind in named.drop("row").schema.items())
        raise DataError(
            f"A column is of a kind that cannot be read ({kinds}).",
            where=where,
            next_step="Bring texts as texts and numbers as numbers.",
        ) from error
    refused = named.with_columns(checked["reason"]).filter(pl.col("reason") != "")
    sound = checked.filter(pl.col("reason") == "").drop("reason")
    if sound.height < FEWEST:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in refused["reason"].value_counts().rows())
        raise DataError(
            f"Only {sound.height} of {frame.height} rows can be learned from{f' ({reasons})' if reasons else ''}.",
            where=where,
            next_step=f"Bring at least {FEWEST}.",
        )
    parts = _parts(sound, config)
    train, valid, test = (sound.filter(pl.Series(parts == part)) for part in range(3))
    _learnable(train, config.task, where)
    return Examples(train, valid, test, refused)


def group_codes(frame: pl.DataFrame) -> np.ndarray:
    """int64 [n], the number of each row's `group`, from 0; a row of no group is one of its own."""
    if "group" not in frame.columns:
        return np.arange(frame.height)
    codes = frame["group"].rank("dense").cast(pl.Int64)
    alone = codes.is_null().to_numpy()
    out = codes.fill_null(0).to_numpy() - 1
    out[alone] = np.arange(alone.sum()) + out.max(initial=-1) + 1
    return out


def _learnable(train: pl.DataFrame, task: TaskConfig, where: str) -> None:
    """Raises DataError where the training part leaves nothing to be told apart."""
    if not train.height:
        raise DataError(
            "No row falls into the training part.", where=where, next_step="Check `part` or `split.shares`."
        )
    if task.kind in ("classification", "interest", "ranking"):
        labels = train["label"].explode().drop_nulls() if task.several else train["label"]
        fewest = 1 if task.several else 2
        if labels.n_unique() < fewest:
            raise DataError(
                "All labels of the training part are the same." if labels.len() else "The training part has no label.",
                where=where,
                next_step="Bring rows of other labels.",
            )


def _named(frame: pl.DataFrame, config: FinetuneConfig, where: str) -> pl.DataFrame:
    """The task's columns under our names, and no others."""
    needed = NEEDED[config.task.kind]
    for ours, theirs in config.columns.items():
        if ours not in (*needed, *OPTIONAL):
            raise CallerError(
                f"{config.task.kind} has no column {ours!r}.",
                where="columns",
                next_step=f"There are: {', '.join(dict.fromkeys([*needed, *OPTIONAL]))}.",
            )
        if theirs not in frame.columns:
            raise CallerError(
                f"The table has no column {theirs!r}; it has {', '.join(frame.columns)}.", where=f"columns.{ours}"
            )
    renamed = frame.select(
        *(pl.col(name) for name in frame.columns if name not in config.columns and name not in config.columns.values()),
        *(pl.col(theirs).alias(ours) for ours, theirs in config.columns.items()),
    )
    if missing := [name for name in needed if name not in renamed.columns]:
        raise DataError(
            f"The table lacks {', '.join(missing)}; it has {', '.join(frame.columns)}.",
            where=where,
            next_step=f"For {config.task.kind}, name your column: --set columns.{missing[0]}=NAME, or "
            f'{missing[0]} = "NAME" under [columns].',
        )
    return renamed.select(*needed, *(name for name in OPTIONAL if name in renamed.columns and name not in needed))


def _checked(frame: pl.DataFrame, task: TaskConfig) -> pl.DataFrame:
    """Columns in the task's types, and `reason`: what is wrong with a row, empty if nothing is."""
    reason, typed, had = pl.lit(""), frame, set(frame.columns)
    for name in sorted(had & {"text", "other", "candidate"}):
        typed = typed.with_columns(pl.col(name).cast(pl.String).fill_null("").str.strip_chars())
        if name != "other":
            reason = pl.when(pl.col(name) == "").then(pl.lit(f"empty {name}")).otherwise(reason)
    for name in sorted(had & LISTS):
        typed = typed.with_columns(_as_list(typed.schema[name], name))
        if name == "anchor":
            reason = pl.when(pl.col(name).list.len() == 0).then(pl.lit("empty anchor")).otherwise(reason)
    for name in sorted(had & NUMBERS) if task.kind != "classification" else ():
        number = pl.col(name).cast(pl.Float32, strict=False)
        typed = typed.with_columns(number)
        wrong = ~pl.col(name).is_finite().fill_null(False)
        reason = pl.when(wrong).then(pl.lit(f"{name} is no number")).otherwise(reason)
        if task.kind == "interest":
            reason = (
                pl.when(~wrong & ~pl.col(name).is_in([0.0, 1.0]))
                .then(pl.lit("label is neither 0 nor 1"))
                .otherwise(reason)
            )
        if task.kind == "ranking":
            reason = pl.when(pl.col(name) < 0).then(pl.lit("label is below 0")).otherwise(reason)
    if task.kind == "ranking":
        reason = pl.when(pl.col("group").is_null()).then(pl.lit("no group")).otherwise(reason)
    if task.kind == "classification":
        typed = typed.with_columns(
            _as_list(typed.schema["label"], "label")
            if task.several
            else pl.col("label").cast(pl.String).str.strip_chars()
        )
        if not task.several:
            reason = pl.when(pl.col("label").fill_null("") == "").then(pl.lit("no label")).otherwise(reason)
    if "ts_ms" in had:
        typed = typed.with_columns(pl.col("ts_ms").cast(pl.Int64, strict=False))
        reason = pl.when(pl.col("ts_ms").is_null()).then(pl.lit("ts_ms is no number")).otherwise(reason)
    if "part" in had:
        typed = typed.with_columns(pl.col("part").cast(pl.String))
        reason = (
            pl.when(~pl.col("part").is_in(PARTS).fill_null(False))
            .then(pl.lit("part is not train, valid or test"))
            .otherwise(reason)
        )
    return typed.with_columns(reason.alias("reason"))


def _as_list(kind: pl.DataType, name: str) -> pl.Expr:
    """Texts apart by | or a list, as a list of texts that are not empty."""
    if isinstance(kind, pl.List):
        texts = pl.col(name).cast(pl.List(pl.String))
    else:
        texts = pl.col(name).cast(pl.String).str.split("|")
    return (
        texts.list.eval(pl.element().str.strip_chars())
        .list.eval(pl.element().filter(pl.element().is_not_null() & (pl.element() != "")))
        .fill_null([])
    )


def _parts(frame: pl.DataFrame, config: FinetuneConfig) -> np.ndarray:
    """0, 1 or 2 for each row."""
    if "part" in frame.columns:
        return np.array([PARTS.index(part) for part in frame["part"]])
    split = config.split
    if split.by == "time":
        return _by_time(frame, split)
    draw, units = rng(config.train.seed, "finetune split"), group_codes(frame)
    stratified = split.by == "stratified" and stratified_by(frame, config.task)
    strata = _strata(frame, config.task, units) if stratified else np.zeros(int(units.max()) + 1, np.int64)
    parts = np.zeros(len(strata), np.int64)
    for stratum in np.unique(strata):
        places = np.flatnonzero(strata == stratum)
        parts[places] = _shared_out(draw.permutation(len(places)), split)
    of_rows: np.ndarray = parts[units]
    return of_rows


def stratified_by(frame: pl.DataFrame, task: TaskConfig) -> str:
    """What a stratified split keeps the shares of, in words; empty where the task has nothing to go by."""
    grouped = "group" in frame.columns
    match task.kind:
        case "classification" | "interest":
            if grouped or task.several:
                return f"the rarest label of each {'group' if grouped else 'row'}"
            return "label"
        case "rating":
            return "the mean rating of each group" if grouped else "rating"
        case "ranking":
            return "whether a list has a relevant candidate"
    return ""


def _strata(frame: pl.DataFrame, task: TaskConfig, units: np.ndarray) -> np.ndarray:
    """int64, of each unit: a row, or a group. units: int64 [n], each row's. Where a unit may have several labels, those
    that are too rare to be shared out are left aside."""
    count = int(units.max()) + 1
    if task.kind == "rating":
        mean = np.bincount(units, frame["rating"].to_numpy()) / np.bincount(units)
        tenths: np.ndarray = (pl.Series(mean).rank("min").to_numpy() - 1) * QUANTILES // count
        return tenths.astype(np.int64)
    label = pl.col("label") > 0 if task.kind == "ranking" else pl.col("label")
    held = frame.select(label, unit=pl.Series(units))
    held = (held.explode("label") if task.several else held).unique()
    held = held.with_columns(
        stratum=pl.col("label").rank("dense").fill_null(0).cast(pl.Int64), units=pl.len().over("label")
    )
    many = task.several or "group" in frame.columns
    kept = held.filter(pl.col("units") >= FEWEST) if many else held
    first = kept.sort("units", "stratum").unique("unit", keep="first", maintain_order=True)
    strata = np.zeros(count, np.int64)
    strata[first["unit"].to_numpy()] = first["stratum"].to_numpy()
    if many:
        strata[np.bincount(strata)[strata] < FEWEST] = 0
    return strata


def _by_time(frame: pl.DataFrame, split: SplitConfig) -> np.ndarray:
    """Rows in the order of time, a group where its last row is: nothing is learned from what came after."""
    if "ts_ms" not in frame.columns:
        raise CallerError(
            "A split by time needs a column ts_ms.", where="split.by", next_step='Bring it, or choose "stratified".'
        )
    codes = group_codes(frame)
    last = np.full(int(codes.max()) + 1, np.iinfo(np.int64).min)
    np.maximum.at(last, codes, frame["ts_ms"].to_numpy())
    order = np.empty(len(last), dtype=np.int64)
    order[np.argsort(last, kind="stable")] = np.arange(len(last))
    parts: np.ndarray = _shared_out(order, split)[codes]
    return parts


def _shared_out(order: np.ndarray, split: SplitConfig) -> np.ndarray:
    """order: int [n], each row's place among n. The first share is training, and so on."""
    first, second = split.shares[0], split.shares[0] + split.shares[1]
    place = (order + 0.5) / max(1, len(order))
    return np.asarray(np.searchsorted([first, second], place, side="right"))
