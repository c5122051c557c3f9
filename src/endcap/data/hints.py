"""What is said of a file's columns that are none of ours: where they went, and which of ours may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from endcap.data.sources import Table

LIKE = 0.8
ALIASES: dict[str, tuple[str, ...]] = {
    "item_id": ("sku", "product_id", "asin", "article_id"),
    "user_id": ("customer_id", "visitor_id", "shopper_id"),
    "session_id": ("order_id", "order_number", "basket_id", "visit_id"),
    "quantity": ("qty", "units"),
    "query": ("search_query", "search_term"),
    "value": ("rating", "stars"),
    "title": ("name", "product_name", "item_name"),
    "categories": ("category", "category_path"),
    "brand": ("manufacturer",),
    "images": ("image", "image_url", "picture"),
    "availability": ("in_stock", "is_in_stock", "is_available", "available", "stock", "stock_status"),
    "created_ms": ("created", "created_at", "creation_date", "date_added"),
}


def column_notes(further: Sequence[str], table: Table) -> list[str]:
    """Where columns went that are none of the table's."""
    if not further:
        return []
    kept = "columns not used" if table == "events" else "columns kept as attributes"
    return [f"{kept}: {', '.join(further)}"]


def column_hints(further: Sequence[str], given: Sequence[str], columns: Sequence[str], table: Table) -> list[str]:
    """A sentence for each further column that may be one of ours (`columns`) that the source does not give."""
    lacking = [name for name in columns if name not in (*given, "attributes", "event_id")]
    meant = [(theirs, our) for theirs in further if (our := _meant(theirs, lacking))]
    return [
        f'Did you mean {our} by the column {theirs}? Then set {our} = "{theirs}" in [{table}.columns].'
        for theirs, our in meant
    ]


def _meant(theirs: str, lacking: list[str]) -> str | None:
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s.-]+", "_", theirs.strip()).lower()
    known = {name: name for name in lacking} | {alias: name for name in lacking for alias in ALIASES.get(name, ())}
    close = difflib.get_close_matches(plain, known, n=1, cutoff=LIKE)
    return known[close[0]] if close else None
