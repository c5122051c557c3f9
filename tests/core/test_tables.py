"""The columns, and frames brought to them."""

from __future__ import annotations

import polars as pl
import pytest

from endcap.core import tables
from endcap.core.types import Event, Item

ALL = (tables.EVENTS, tables.ITEMS, tables.USERS, tables.QUARANTINE)


def test_names_are_distinct_and_explained() -> None:
    for columns in ALL:
        assert len(set(tables.names(columns))) == len(columns)
        assert all(column.meaning for column in columns)


def test_the_tables_have_the_fields_of_the_values() -> None:
    assert set(tables.names(tables.EVENTS)) == set(Event.__struct_fields__)
    assert set(tables.names(tables.ITEMS)) == set(Item.__struct_fields__)


def test_required_columns_are_the_fields_without_a_default() -> None:
    required = {column.name for column in tables.EVENTS if not column.nullable}
    assert required == {"event_id", "event_type", "user_id", "ts_ms"}


def test_empty_has_the_schema() -> None:
    assert tables.empty(tables.EVENTS).schema == tables.schema(tables.EVENTS)
    assert tables.empty(tables.EVENTS).height == 0


def test_conform_orders_fills_casts_and_drops() -> None:
    frame = tables.conform(pl.DataFrame({"extra": [1], "attributes": ["{}"], "user_id": [7]}), tables.USERS)
    assert frame.schema == tables.schema(tables.USERS)
    assert frame.rows() == [("7", "{}")]
    assert tables.conform(pl.DataFrame({"user_id": ["a"]}), tables.USERS).rows() == [("a", None)]
    with pytest.raises(pl.exceptions.InvalidOperationError):
        tables.conform(pl.DataFrame({"ts_ms": ["noon"]}), tables.EVENTS)
