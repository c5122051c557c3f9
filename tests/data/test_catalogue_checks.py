"""Typing of items and users."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from endcap.core.errors import DataError
from endcap.data.catalogue_checks import check_items, check_users
from endcap.data.checks import Checked
from endcap.data.sources import SourceConfig


def check(columns: dict[str, Any], **config: Any) -> Checked:
    return check_items(pl.LazyFrame(columns), SourceConfig(**config), source="items")


@pytest.mark.parametrize(
    "written",
    [
        ["Food", "Tea & Co"],
        '["Food", "Tea & Co"]',
        "Food > Tea & Co",
        "Food|Tea & Co",
        '["Food > Tea & Co", "New > In"]',
    ],
)
def test_a_category_path_is_the_same_in_every_form(written: Any) -> None:
    assert check({"item_id": ["a"], "categories": [written]}).frame["categories"].to_list() == [["Food", "Tea & Co"]]


def test_of_several_paths_the_first_counts() -> None:
    checked = check({"item_id": ["a", "b"], "categories": ["A > B|C > D", "Home|Garden > Tools"]})
    assert checked.frame["categories"].to_list() == [["A", "B"], ["Home|Garden", "Tools"]]


def test_fills_are_stated_and_counted() -> None:
    checked = check({"item_id": ["a", "b"], "title": ["Tea", " "], "price": ["2", None]}, currency="EUR")
    assert checked.frame.select("title", "description", "availability", "currency", "attributes").rows() == [
        ("Tea", "", "in_stock", "EUR", "{}"),
        ("", "", "in_stock", None, "{}"),
    ]
    assert checked.fills == {"title": 1, "currency": 1}
    assert checked.given == ("item_id", "title", "price", "currency")
    absent = "description, categories, brand, attributes, images, audio, availability, created_ms"
    assert checked.notes == (f"not in the file: {absent}; items known already keep theirs, and new ones are in_stock",)
    assert checked.frame.select("categories", "images", "audio").row(0) == ([], [], [])


def test_the_last_row_of_an_item_counts() -> None:
    checked = check({"item_id": ["a", "b", "a"], "title": ["old", "other", "new"]})
    assert checked.frame.select("item_id", "title").rows() == [("b", "other"), ("a", "new")]
    assert json.loads(checked.refused["raw"].item())["title"] == "old"
    assert checked.rows_in == 3


@pytest.mark.parametrize(
    ("column", "cell", "rule"),
    [
        ("price", "cheap", "wrong_type"),
        ("price", "inf", "not_finite"),
        ("price", "-1", "negative_price"),
        ("price", "1e300", "too_large"),
        ("availability", "soon", "availability"),
        ("attributes", "[1]", "wrong_type"),
        ("images", "[broken", "wrong_type"),
        ("created_ms", "yesterday", "wrong_type"),
        ("item_id", " ", "missing_id"),
    ],
)
def test_a_bad_cell_refuses_the_row(column: str, cell: str, rule: str) -> None:
    good = {"item_id": "good", "price": "1", "availability": "OUT_OF_STOCK", "created_ms": "2024-01-01T00:00:00Z"}
    rows = [good, good | {"item_id": "bad", column: cell}]
    checked = check_items(pl.LazyFrame(rows, infer_schema_length=None), SourceConfig(), source="items")
    assert checked.frame.select("item_id", "availability").rows() == [("good", "out_of_stock")]
    assert checked.refused["rule"].to_list() == [rule]
    assert json.loads(checked.refused["raw"].item())[column] == cell


def test_further_columns_become_attributes() -> None:
    checked = check(
        {"item_id": ["a"], "size": ["XL"], "weight": [1.5], "note": [None], "attributes": ['{"size": "S"}']}
    )
    assert json.loads(checked.frame["attributes"].item()) == {"size": "S", "weight": "1.5"}


def test_structured_attributes_are_flat_texts() -> None:
    checked = check({"item_id": ["a"], "attributes": [{"colours": ["red", "blue"], "organic": True, "left": None}]})
    assert json.loads(checked.frame["attributes"].item()) == {"colours": "red|blue", "organic": "true"}


def test_users_keep_their_last_row_and_need_an_id() -> None:
    raw = pl.LazyFrame({"user_id": ["u", None, "u"], "age": [1, 2, 3]})
    checked = check_users(raw, source="users")
    assert checked.frame.select("user_id", "attributes").rows() == [("u", '{"age":"3"}')]
    assert sorted(checked.refused["rule"]) == ["duplicate_user_id", "missing_id"]
    with pytest.raises(DataError, match="no column for user_id"):
        check_users(pl.LazyFrame({"name": ["x"]}), source="users")
