"""Files that other systems write, as they write them: Google Retail JSON lines and Amazon Personalize CSV.

Google Retail: one line of a purchase or cart event becomes a row per product. Events that are about no product (a home
or category page, the cart page as a whole) say nothing of an item; they are kept in quarantine under the rule
`no_item`, never guessed into something else. Google's schema: UserEvent and Product of the Retail API, v2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from endcap.core import tables
from endcap.core.errors import CallerError
from endcap.core.types import EventType
from endcap.data.lines import Fault, RawRows
from endcap.data.sources import COLUMNS, PATH_MARK, SOURCES, CsvSource, SourceConfig, Table, as_text, json_objects

Row = dict[str, str | None]

GOOGLE_EVENTS = {
    "detail-page-view": EventType.VIEW,
    "add-to-cart": EventType.ADD_TO_CART,
    "remove-from-cart": EventType.REMOVE_FROM_CART,
    "purchase-complete": EventType.PURCHASE,
    "search": EventType.SEARCH,
}
GOOGLE_PAGES = ("home-page-view", "category-page-view", "shopping-cart-page-view", "promotion-offered-click")
PERSONALIZE_EVENTS = {"addtocart": EventType.ADD_TO_CART, "removefromcart": EventType.REMOVE_FROM_CART}
PERSONALIZE_COLUMNS: dict[Table, dict[str, str]] = {
    "events": {
        "user_id": "USER_ID",
        "item_id": "ITEM_ID",
        "ts_ms": "TIMESTAMP",
        "event_type": "EVENT_TYPE",
        "value": "EVENT_VALUE",
        "event_id": "EVENT_ID",
        "recommendation_id": "RECOMMENDATION_ID",
    },
    "items": {
        "item_id": "ITEM_ID",
        "created_ms": "CREATION_TIMESTAMP",
        "price": "PRICE",
        "title": "TITLE",
        "description": "PRODUCT_DESCRIPTION",
        "brand": "BRAND",
    },
    "users": {"user_id": "USER_ID"},
}


class GoogleRetailSource:
    """User events or products of Google's Retail API, one JSON object a line."""

    def __init__(self, path: Path, config: SourceConfig, table: Table) -> None:
        if table == "users":
            raise CallerError(
                "Google Retail has no table of users.", next_step="Read users from a file of another format."
            )
        self.path, self.config, self.table = path, config, table

    def scan(self) -> pl.LazyFrame:
        rows = RawRows(tables.names(COLUMNS[self.table]))
        for line in json_objects(self.path, self.config.max_line_bytes):
            if isinstance(line, Fault):
                rows.refuse(line)
                continue
            number, value = line
            for row in self._rows(number, value):
                rows.refuse(row) if isinstance(row, Fault) else rows.add(number, row)
        return rows.frame().lazy()

    def _rows(self, number: int, value: dict[str, Any]) -> Iterator[Row | Fault]:
        try:
            yield from _google_events(number, value) if self.table == "events" else [_google_product(value)]
        except (AttributeError, TypeError, KeyError, IndexError):
            raw = msgspec.json.encode(value).decode()
            yield Fault(number, "malformed", f"The object is not shaped like one of Google Retail's {self.table}.", raw)


class PersonalizeSource(CsvSource):
    """Interactions, items or users of Amazon Personalize, as CSV with its upper-case names.

    Items' category columns (CATEGORY_L1, CATEGORY_L2 … or CATEGORIES or GENRES with `|`) become the path; columns
    that are none of Endcap's become attributes. A mapping in the configuration goes before these names.
    """

    def scan(self) -> pl.LazyFrame:
        found = CsvSource(self.path, SourceConfig(**_plain_reading(self.config)), self.table).scan()
        names = found.collect_schema().names()
        known = {ours: theirs for ours, theirs in PERSONALIZE_COLUMNS[self.table].items() if theirs in names}
        if self.table == "items" and (path := _personalize_categories(names)):
            known["categories"] = path
        mapped = self.config.model_copy(update={"columns": known | self.config.columns})
        raw = CsvSource(self.path, mapped, self.table).scan()
        if "event_type" not in raw.collect_schema():
            return raw
        plain = pl.col("event_type").str.to_lowercase().str.replace_all("[ _-]", "")
        ours = plain.replace_strict(
            list(PERSONALIZE_EVENTS), [kind.value for kind in PERSONALIZE_EVENTS.values()], default=None
        )
        return raw.with_columns(event_type=pl.coalesce(ours, "event_type"))


def _google_events(number: int, event: dict[str, Any]) -> Iterator[Row | Fault]:
    theirs = event.get("eventType")
    if theirs in GOOGLE_PAGES:
        reason = f"A {theirs} is about no single item; there is nothing to learn from it yet."
        yield Fault(number, "no_item", reason, msgspec.json.encode(event).decode())
        return
    kind = GOOGLE_EVENTS.get(str(theirs))
    order = event.get("purchaseTransaction") or {}
    session = order.get("id") if kind is EventType.PURCHASE else None
    shared = {
        "event_type": kind.value if kind else theirs,
        "user_id": (event.get("userInfo") or {}).get("userId") or event.get("visitorId"),
        "ts_ms": event.get("eventTime"),
        "session_id": session or event.get("sessionId"),
        "currency": order.get("currencyCode"),
        "query": event.get("searchQuery"),
        "recommendation_id": event.get("attributionToken"),
    }
    products = [] if kind is EventType.SEARCH else event.get("productDetails") or []
    event_id = event.get("eventId")
    for at, detail in enumerate(products or [{}], 1):
        product = detail.get("product") or {}
        price = product.get("priceInfo") or {}
        yield _cells(
            shared
            | {
                "event_id": f"{event_id}#{at}" if event_id and len(products) > 1 else event_id,
                "item_id": product.get("id"),
                "quantity": detail.get("quantity"),
                "price": price.get("price"),
                "currency": shared["currency"] or price.get("currencyCode"),
            }
        )


def _google_product(product: dict[str, Any]) -> Row:
    price = product.get("priceInfo") or {}
    known: dict[str, Any] = {
        "item_id": product.get("id"),
        "title": product.get("title"),
        "description": product.get("description"),
        "price": price.get("price"),
        "currency": price.get("currencyCode"),
        "categories": (product.get("categories") or [None])[0],
        "brand": (product.get("brands") or [None])[0],
        "attributes": {name: _google_values(value) for name, value in (product.get("attributes") or {}).items()},
        "images": [image["uri"] for image in product.get("images") or []],
        "availability": product.get("availability"),
        "created_ms": product.get("availableTime") or product.get("publishTime"),
    }
    return _cells(known)


def _google_values(value: dict[str, Any]) -> list[Any]:
    return [*(value.get("text") or []), *(value.get("numbers") or [])]


def _cells(values: dict[str, Any]) -> Row:
    return {name: as_text(value) for name, value in values.items()}


def _personalize_categories(names: list[str]) -> str:
    """The columns that make up the path, as a mapping writes it; "" where there is none."""
    levels = sorted(name for name in names if name.startswith("CATEGORY_L") and name[10:].isdigit())
    if levels:
        return PATH_MARK.join(levels)
    return next((name for name in ("CATEGORIES", "CATEGORY", "GENRES") if name in names), "")


def _plain_reading(config: SourceConfig) -> dict[str, Any]:
    return {"delimiter": config.delimiter, "max_line_bytes": config.max_line_bytes}


SOURCES.add("google-retail", GoogleRetailSource)
SOURCES.add("personalize", PersonalizeSource)
