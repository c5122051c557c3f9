"""The reference of the data names every column, every availability and every rule of cleaning there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from endcap.core.types import Availability
from endcap.data.clean import RULES
from endcap.data.sources import COLUMNS, Table

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference" / "data.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[str]:
    """The first cells of the table under a heading."""
    part = REFERENCE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)`", part, re.MULTILINE)


@pytest.mark.parametrize(("heading", "table"), [("Events", "events"), ("Items", "items"), ("Users", "users")])
def test_every_column_is_documented_in_order(heading: str, table: Table) -> None:
    assert rows(heading) == [column.name for column in COLUMNS[table]]


def test_every_availability_and_rule_is_documented() -> None:
    assert rows("Availability") == list(Availability)
    assert rows("Cleaning") == list(RULES)
