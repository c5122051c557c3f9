"""The catalogue and the users, changed one row or a batch at a time while the shop is open.

Rows are read as those of a file of JSON lines are, by the rules of `data.catalogue_checks`; beside these, no id may
hold control characters, and a field that there is not is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import polars as pl

from endcap.app.events import CONTROL
from endcap.core import tables
from endcap.core.errors import CallerError, NotFoundError
from endcap.core.types import SESSION_PREFIX, Availability, Item
from endcap.data.catalogue_checks import check_items, check_users
from endcap.data.checks import Checked
from endcap.data.lines import LINE
from endcap.data.sources import SourceConfig, as_text
from endcap.data.store import Store

Row = Mapping[str, Any]
MAX_BATCH = 1000
MAX_ID = 256
ITEM_FIELDS = tuple(tables.names(tables.ITEMS))
USER_FIELDS = tuple(tables.names(tables.USERS))
DELETED = "endcap:deleted"  # the attribute of an item that was deleted


@dataclass(frozen=True, slots=True)
class Refused:
    """position: place in the batch, from 0. reason: a sentence."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a batch. accepted: ids, in the order given."""

    accepted: tuple[str, ...]
    refused: tuple[Refused, ...]


def put_items(store: Store, config: SourceConfig, rows: Sequence[Item | Row]) -> Put:
    """Insert or replace items, each row judged on its own. What a row does not name gets the default of `Item`.

    config: the currency of prices that name none is taken from it. CallerError for a batch that is too large.
    """
    return _put(rows, ITEM_FIELDS, ITEM_FIELDS, partial(_checked_items, config), store.put_items)


def put_fields(store: Store, config: SourceConfig, rows: Sequence[Row], given: Sequence[str]) -> Put:
    """As `put_items`, but of an item that is known only the given fields are written. given: `item_id` among them."""
    return _put(rows, ITEM_FIELDS, given, partial(_checked_items, config), store.put_items)


def put_users(store: Store, rows: Sequence[Row]) -> Put:
    """Insert or replace users, each row judged on its own: `user_id` and `attributes`."""
    return _put(rows, USER_FIELDS, USER_FIELDS, lambda raw: check_users(raw.lazy(), source="users"), store.put_users)


def put_item(store: Store, config: SourceConfig, item_id: str, fields: Row) -> Item:
    """Insert or replace one item; returns it as it is now. CallerError says what is wrong with it."""
    _only(put_items(store, config, [{**fields, "item_id": item_id}]), "item")
    return item(store, item_id)


def patch_item(store: Store, config: SourceConfig, item_id: str, fields: Row) -> Item:
    """Change only the fields that are given; None empties one. NotFoundError where there is no such item."""
    if not fields:
        raise CallerError("Nothing is given to change.", where="item", next_step=f"Give {', '.join(ITEM_FIELDS[1:])}.")
    item(store, item_id)
    given = [name for name in ITEM_FIELDS if name in fields or name == "item_id"]
    _only(put_fields(store, config, [{**fields, "item_id": item_id}], given), "item")
    return item(store, item_id)


def delete_item(store: Store, item_id: str) -> bool:
    """Take an item out of the catalogue. False where it was not there; also then it is never shown.

    The row stays, hidden and marked, since the log refers to it and a release that knows it would show it by its own
    word. It is there again when it is put again.
    """
    if fault := _id_fault("item_id", item_id):
        raise CallerError(fault, where="item_id", next_step="Name the item.")
    found = store.item(item_id)
    said = {} if found is None else found.attributes
    mark = {
        "item_id": item_id,
        "availability": Availability.HIDDEN.value,
        "attributes": as_text({**said, DELETED: "1"}),
    }
    store.put_items(pl.DataFrame([mark]))
    return found is not None and not is_deleted(found)


def is_deleted(item: Item) -> bool:
    return DELETED in item.attributes


def item(store: Store, item_id: str) -> Item:
    """NotFoundError where the catalogue has none of the id, or no more."""
    found = store.item(item_id)
    if found is None or is_deleted(found):
        raise NotFoundError(
            f"The catalogue has no item {item_id!r}.", where="item_id", next_step="Put it there, or name another."
        )
    return found


def put_user(store: Store, user_id: str, attributes: Mapping[str, Any]) -> dict[str, str]:
    """Insert or replace what is said of a user; returns their attributes as they are kept."""
    _only(put_users(store, [{"user_id": user_id, "attributes": dict(attributes)}]), "user")
    return store.user(user_id) or {}


def _put(
    rows: Sequence[Item | Row],
    known: Sequence[str],
    given: Sequence[str],
    check: Callable[[pl.DataFrame], Checked],
    keep: Callable[[pl.DataFrame], int],
) -> Put:
    """known: the fields there are, the id first. given: those to write."""
    if len(rows) > MAX_BATCH:
        raise CallerError(
            f"A batch of {len(rows)} rows is too large.", where="rows", next_step=f"Send at most {MAX_BATCH}."
        )
    plain = [msgspec.to_builtins(row) if isinstance(row, Item) else row for row in rows]
    faults = {place: fault for place, row in enumerate(plain) if (fault := _fault(row, known))}
    sound = [place for place in range(len(plain)) if place not in faults]
    accepted: tuple[str, ...] = ()
    if sound:
        cells = {name: [as_text(plain[place].get(name)) for place in sound] for name in given}
        raw = pl.DataFrame(cells, schema=dict.fromkeys(given, pl.String))
        checked = check(raw.with_columns(pl.Series(LINE, sound, pl.Int64)))
        faults |= dict(checked.refused.select("line", "reason").rows())
        kept = checked.frame.select(given)
        if kept.height:
            keep(kept)
        accepted = tuple(kept[known[0]].to_list())
    return Put(accepted, tuple(Refused(place, faults[place]) for place in sorted(faults)))


def _checked_items(config: SourceConfig, raw: pl.DataFrame) -> Checked:
    return check_items(raw.lazy(), config.model_copy(update={"ts_unit": "ms"}), source="items")


def _fault(row: Row, known: Sequence[str]) -> str:
    """What is wrong with a row before its cells are read, as a sentence; empty where nothing is."""
    if not isinstance(row, Mapping):
        return "A row is an object of names and values."
    if further := [str(name) for name in row if name not in known]:
        return f"There is no field {further[0]!r}; there are {', '.join(known)}."
    return _id_fault(known[0], row.get(known[0]))


def _id_fault(name: str, given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        return f"The {name} has to be text that is not blank."
    if len(given) > MAX_ID:
        return f"The {name} is longer than {MAX_ID} characters."
    if CONTROL.search(given):
        return f"The {name} {given!r} holds control characters."
    if name == "user_id" and given.startswith(SESSION_PREFIX):
        return f"User ids that begin with {SESSION_PREFIX!r} are kept for anonymous sessions."
    return ""


def _only(put: Put, what: str) -> None:
    """CallerError where the one row of a batch was refused."""
    for refused in put.refused:
        raise CallerError(refused.reason, where=what, next_step="Mend it and send it again.")
