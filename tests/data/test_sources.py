"""Readers: names, mapping, and what cannot be mapped."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from endcap.core.errors import CallerError, DataError
from endcap.core.protocols import EventSource
from endcap.data.lines import FAULT_RULE, LINE
from endcap.data.sources import SOURCES, SourceConfig, Table, open_source


def scan(path: Path, table: Table = "events", **config: object) -> pl.DataFrame:
    source = open_source(path, SourceConfig.model_validate(config), table)
    assert isinstance(source, EventSource)
    return source.scan().collect()


def test_the_mapping_renames_and_keeps_what_stands_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("sku,item_id,extra\n1,2,3\n")
    assert scan(path, columns={"item_id": "sku"}).to_dicts() == [
        {LINE: 2, "item_id": "1", "item_id (file)": "2", "extra": "3"}
    ]


def test_a_category_path_may_be_made_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "i.parquet"
    pl.DataFrame({"item_id": [1, 2], "top": ["Food", "Food"], "low": ["Milk", None]}).write_parquet(path)
    frame = scan(path, "items", columns={"categories": "top > low"})
    assert frame["categories"].to_list() == ["Food > Milk", "Food"]
    assert frame[LINE].to_list() == [1, 2]


def test_a_mapping_to_a_missing_column_lists_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"no column 'sku'.*Columns found: a, b"):
        scan(path, columns={"item_id": "sku"})
    with pytest.raises(CallerError, match="`columns` names colour"):
        scan(path, columns={"colour": "a"})


def test_json_lines_keep_nested_values_as_json(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(
        '{"user_id": 7, "tags": ["x", 1], "line": 9}\n\n[1]\n{"user_id":\n{"query": "ü", "user_id": null}\n'
    )
    frame = scan(path)
    assert frame[LINE].to_list() == [1, 3, 4, 5]
    assert frame["user_id"].to_list() == ["7", None, None, None]
    assert json.loads(frame["tags"][0]) == ["x", 1]
    assert frame["line (file)"][0] == "9"
    assert frame[FAULT_RULE].to_list() == [None, "malformed", "malformed", None]


def test_built_in_names_are_registered() -> None:
    assert {"csv", "jsonl", "parquet"} <= set(SOURCES.names())


def test_an_empty_section_equals_the_defaults() -> None:
    assert SourceConfig.model_validate({}) == SourceConfig()


def test_json_lines_without_one_object_have_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text("x\n[2]\n")
    assert scan(path)[FAULT_RULE].to_list() == ["malformed", "malformed"]
