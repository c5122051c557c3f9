"""CSV: the quick reader and the tolerant one agree, and what is wrong costs a row and not a file."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.core.errors import DataError
from endcap.data import csv_file
from endcap.data.csv_file import scan_csv
from endcap.data.lines import FAULT_RAW, FAULT_RULE, LINE

MAX_BYTES = 1000


def scanned(folder: Path, content: str | bytes, delimiter: str = ",") -> pl.DataFrame:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return scan_csv(path, delimiter, MAX_BYTES).collect()


def test_line_ends_within_quotes_keep_the_physical_line(tmp_path: Path) -> None:
    frame = scanned(tmp_path, 'a,b\n"one\ntwo",1\nx,"say ""hi"""\n')
    assert frame.select("a", "b", LINE).rows() == [("one\ntwo", "1", 2), ("x", 'say "hi"', 4)]
    assert FAULT_RULE not in frame.columns


def test_the_byte_order_mark_and_carriage_returns_are_no_content(tmp_path: Path) -> None:
    assert scanned(tmp_path, b'\xef\xbb\xbfa,b\r\n1,2\r\n3,"4"\r\n').select("a", "b").rows() == [("1", "2"), ("3", "4")]


def test_a_column_without_a_name_gets_one(tmp_path: Path) -> None:
    assert scanned(tmp_path, ",b,line\n1,2,3\n").columns == ["column_1", "b", "line (file)", LINE]


def test_an_unclosed_quote_costs_its_own_line_only(tmp_path: Path) -> None:
    frame = scanned(tmp_path, 'a,b\n"open,1\nx,2\n"y\nz",3\nw,4\n')
    assert frame.filter(pl.col(FAULT_RULE).is_null()).select("a", "b", LINE).rows() == [
        ("x", "2", 3),
        ("y\nz", "3", 4),
        ("w", "4", 6),
    ]
    assert frame.filter(pl.col(FAULT_RULE) == "malformed").select(LINE, FAULT_RAW).rows() == [(2, '"open,1')]


def test_a_quote_within_a_plain_field_is_a_character(tmp_path: Path) -> None:
    frame = scanned(tmp_path, 'a,b\n5" pipe,1\n"x"y,2\n')
    assert frame.filter(pl.col(FAULT_RULE).is_null()).select("a", "b").rows() == [('5" pipe', "1")]
    assert frame[FAULT_RULE].to_list() == [None, "malformed"]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert scanned(tmp_path, "a,b\n\n1,2\n\n").select("a", "b", LINE).rows() == [("1", "2", 3)]


def test_a_huge_line_is_cut_short_in_quarantine(tmp_path: Path) -> None:
    frame = scanned(tmp_path, f"a,b\n{'x' * 5000},1\n1,2\n")
    assert frame[FAULT_RULE].to_list() == ["line_too_long", None]
    assert len(frame[FAULT_RAW][0]) == 200


def test_bare_carriage_returns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bare carriage returns"):
        scanned(tmp_path, "a,b\r1,2\r")


def test_records_across_blocks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 16)
    rows = [(f"row {n}\nsecond", str(n)) for n in range(20)]
    frame = scanned(tmp_path, "a,b\n" + "".join(f'"{a}",{b}\n' for a, b in rows))
    assert frame.select("a", "b").rows() == rows
    assert frame[LINE].to_list() == list(range(2, 42, 2))


FIELD = st.text(st.sampled_from('ab",\n é'), max_size=5)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8))
def test_both_readers_agree_on_well_formed_files(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    body = "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in rows)
    quick = scanned(folder, "a,b\n" + body)
    tolerant = scanned(folder, "a,b\n" + body + "one field too few\n")
    wanted = [tuple(cell or None for cell in row) for row in rows]
    assert FAULT_RULE not in quick.columns
    assert quick.select(pl.col("a", "b").replace("", None)).rows() == wanted
    assert (
        tolerant.head(len(rows)).select("a", "b", LINE).equals(quick.select(pl.col("a", "b").replace("", None), LINE))
    )
    assert tolerant[FAULT_RULE].to_list()[-1] == "malformed"
