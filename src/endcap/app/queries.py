"""What is asked for, checked: every field of its declared type and within bounds."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import msgspec

from endcap.app.events import typed_event
from endcap.core.errors import CallerError
from endcap.core.slates import MOST_IN_PAGE
from endcap.core.types import Placement, Query

MAX_N = MOST_IN_PAGE
MAX_LISTED = 1000
MAX_QUERY = 1000


def checked(query: Query) -> Query:
    """The query with every field of its declared type; the placement may be given as text, the locale as `zh_CN`."""
    try:
        query = msgspec.convert({part.name: getattr(query, part.name) for part in fields(Query)}, Query)
    except msgspec.ValidationError as error:
        what, _, field = str(error).removesuffix("`").partition(" - at `$.")
        step = f"One of {', '.join(Placement)}." if field == "placement" else "The fields are those of endcap.Query."
        raise CallerError(f"{what}.", where=field, next_step=step) from error
    _check_limits(query)
    if not query.session_events and "_" not in query.locale:
        return query
    acts = tuple(typed_event(act, f"session_events[{place}]") for place, act in enumerate(query.session_events))
    return replace(query, session_events=acts, locale=query.locale.replace("_", "-"))


def _check_limits(query: Query) -> None:
    if not 1 <= query.n <= MAX_N:
        raise CallerError(f"n is {query.n}.", where="n", next_step=f"Ask for 1 to {MAX_N} items.")
    for name in ("cart", "exclude", "categories", "brands", "attributes", "session_events"):
        if len(getattr(query, name)) > MAX_LISTED:
            raise CallerError(f"{name} is too long.", where=name, next_step=f"Send at most {MAX_LISTED} entries.")
    for name in ("min_price", "max_price", "budget_ms"):
        value = getattr(query, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise CallerError(f"{name} is {value:g}.", where=name, next_step="Send a number that is not negative.")
    if query.placement is Placement.ITEM and query.item_id is None:
        raise CallerError(
            "The placement `item` shows what goes with an item.", where="item_id", next_step="Name the item looked at."
        )
