"""A file becomes a clean table, a quarantine and a report; whatever the file is like, the rows add up."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.core import tables
from endcap.core.errors import CallerError, DataError
from endcap.data.clean import CleanConfig
from endcap.data.read import DataConfig, ReadResult, read_events, read_items, read_users
from endcap.data.sources import SourceConfig

NOW_MS = 1_750_000_000_000
T0 = 1_700_000_000_000
HEADER = "event_id,event_type,user_id,item_id,ts_ms,quantity,price"
GOOD = [f"e{n},purchase,u{n % 2},i{n},{T0 + n * 60_000},1,2.50" for n in range(4)]
ITEMS = tables.conform(pl.DataFrame({"item_id": [f"i{n}" for n in range(4)], "categories": [["a"]] * 4}), tables.ITEMS)


def write(folder: Path, lines: list[str | bytes], name: str = "events.csv") -> Path:
    path = folder / name
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n")
    return path


def read(path: Path, config: DataConfig | None = None, items: pl.DataFrame | None = None) -> ReadResult:
    result = read_events(path, config or DataConfig(), items=items, now_ms=NOW_MS)
    assert result.frame.schema == pl.Schema(tables.schema(tables.EVENTS))
    assert result.quarantine.schema == pl.Schema(tables.schema(tables.QUARANTINE))
    assert result.report.rows_in == result.frame.height + result.quarantine.height
    assert (
        not result.frame.select(pl.col(c.name).is_null().any() for c in tables.EVENTS if not c.nullable)
        .row(0)
        .count(True)
    )
    return result


BAD_ROWS: dict[str, tuple[str | bytes, str, str]] = {
    "wrong type": (f"x,purchase,u,i1,{T0},two,1", "wrong_type", "quantity 'two' is not a number"),
    "missing id": (f"x,purchase,,i1,{T0},1,1", "missing_id", "no user_id"),
    "negative price": (f"x,purchase,u,i1,{T0},1,-3.5", "negative_price", "price '-3.5' is negative"),
    "beyond sums": (f"x,purchase,u,i1,{T0},1,1e300", "too_large", "price '1e300' is beyond 1e+12"),
    "year 1970": ("x,purchase,u,i1,1000,1,1", "impossible_time", "'1000' is before 1995"),
    "year 2999": ("x,purchase,u,i1,32472144000000,1,1", "impossible_time", "more than a day ahead"),
    "unknown item": (f"x,purchase,u,nothing,{T0},1,1", "unknown_item", "'nothing' is not in the catalogue"),
    "broken UTF-8": (b"x,purchase,\xff\xfe,i1,%d,1,1" % T0, "encoding", "byte 12 of it is 0xff"),
    "huge line": (f"x,purchase,u{'u' * 3000},i1,{T0},1,1", "line_too_long", "max_line_bytes allows 2000"),
    "too few fields": ("x,purchase,u", "malformed", "3 fields; the header has 7"),
    "zero quantity": (f"x,purchase,u,i1,{T0},0,1", "nonpositive_quantity", "'0' is not above zero"),
    "unknown type": (f"x,dance,u,i1,{T0},1,1", "event_type", "'dance' is not known"),
    "infinite price": (f"x,purchase,u,i1,{T0},1,inf", "not_finite", "price is not a finite"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_quarantined_with_its_line_and_a_reason(tmp_path: Path, kind: str) -> None:
    row, rule, reason = BAD_ROWS[kind]
    path = write(tmp_path, [HEADER, *GOOD[:2], row, *GOOD[2:]])
    result = read(path, DataConfig(events=SourceConfig(max_line_bytes=2000)), ITEMS)
    assert result.frame["event_id"].to_list() == ["e0", "e1", "e2", "e3"]
    (refused,) = result.quarantine.to_dicts()
    assert (refused["rule"], refused["line"], refused["source"]) == (rule, 4, str(path))
    assert reason in refused["reason"]
    assert refused["raw"]
    assert result.report.quarantined == {rule: 1}


def truncated(folder: Path) -> Path:
    packed = gzip.compress("\n".join([HEADER, *GOOD * 500]).encode())
    path = folder / "events.csv.gz"
    path.write_bytes(packed[: len(packed) // 2])
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated gzip": (truncated, "truncated or damaged after"),
    "duplicate header": (lambda f: write(f, [HEADER + ",price", GOOD[0] + ",1"]), "more than once: price"),
    "empty file": (lambda f: _touch(f / "events.csv"), "The file is empty"),
    "empty gzip": (lambda f: _bytes(f / "events.csv.gz", gzip.compress(b"")), "The file is empty"),
    "not gzip": (lambda f: _bytes(f / "events.csv.gz", HEADER.encode()), "Not a gzipped file"),
    "UTF-16": (lambda f: _bytes(f / "events.csv", HEADER.encode("utf-16")), "looks like UTF-16"),
    "missing column": (lambda f: write(f, ["user_id,when", "u,1"]), "no column for ts_ms"),
    "other delimiter": (lambda f: write(f, [HEADER.replace(",", ";")]), "set `delimiter`"),
    "not Parquet": (lambda f: _bytes(f / "events.parquet", b"PAR1 and nothing else"), "not readable Parquet"),
    "empty JSON lines": (lambda f: _touch(f / "events.jsonl"), "The file is empty"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_whole_with_its_name_and_a_next_step(tmp_path: Path, kind: str) -> None:
    make, message = BAD_FILES[kind]
    path = make(tmp_path)
    with pytest.raises(DataError) as raised:
        read(path)
    assert message in str(raised.value)
    assert str(path) in raised.value.where
    assert raised.value.next_step


def test_a_header_alone_is_no_error_and_says_so(tmp_path: Path) -> None:
    result = read(write(tmp_path, [HEADER]))
    assert result.report.rows_in == 0
    assert result.report.warnings == ("The file has a header and no rows: there are no events.",)


def test_an_unknown_ending_and_a_missing_file_are_the_callers(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=r"Known endings: \.csv"):
        read(write(tmp_path, [HEADER], "events.xlsx"))
    with pytest.raises(CallerError, match="no such file"):
        read(tmp_path / "nothing.csv")


def test_every_format_gives_the_same_table(tmp_path: Path) -> None:
    csv = write(tmp_path, [HEADER, *GOOD])
    frame = pl.read_csv(csv)
    frame.write_parquet(tmp_path / "events.parquet")
    frame.write_ndjson(tmp_path / "events.jsonl")
    (tmp_path / "events.jsonl.gz").write_bytes(gzip.compress((tmp_path / "events.jsonl").read_bytes()))
    (tmp_path / "events.csv.gz").write_bytes(
        gzip.compress(csv.read_bytes()[:100]) + gzip.compress(csv.read_bytes()[100:])
    )
    frame.write_csv(tmp_path / "events.tsv", separator="\t")
    wanted = read(csv).frame
    assert wanted.height == 4
    for name in ("events.parquet", "events.jsonl", "events.jsonl.gz", "events.csv.gz", "events.tsv"):
        assert read(tmp_path / name).frame.equals(wanted), name


def test_the_raw_row_of_a_cleaning_rule_is_as_it_came(tmp_path: Path) -> None:
    path = write(tmp_path, [HEADER + ",shelf", GOOD[0] + ",7", GOOD[0] + ",8"])
    result = read(path)
    (refused,) = result.quarantine.to_dicts()
    assert (refused["rule"], refused["line"]) == ("exact_duplicate", 3)
    assert json.loads(refused["raw"])["shelf"] == "8"
    assert json.loads(refused["raw"])["price"] == "2.50"


def test_damage_within_parquet_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    rows = [line.split(",") for line in GOOD * 50]
    pl.DataFrame(rows, schema=HEADER.split(","), orient="row").write_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(DataError, match="nothing was ingested"):
        read(path)


def test_items_and_users_add_up_too(tmp_path: Path) -> None:
    items = read_items(write(tmp_path, ["item_id,price", "a,1", "a,2", ",3", "b,-1"], "items.csv"), DataConfig())
    assert items.frame.select("item_id", "price").rows() == [("a", 2.0)]
    assert items.quarantine.select("rule", "line").rows() == [
        ("duplicate_item_id", 2),
        ("missing_id", 4),
        ("negative_price", 5),
    ]
    assert items.frame.columns == ["item_id", "price"]
    assert items.report.examples["negative_price"] == "line 5: The price '-1' is negative."
    users = read_users(write(tmp_path, ["user_id,age", "u,30", "u,31", "v,"], "users.csv"), DataConfig())
    assert users.frame.rows() == [("u", '{"age":"31"}'), ("v", "{}")]
    assert users.report.rows_in == 3


def test_columns_that_are_none_of_ours_are_named_and_the_likely_ones_hinted_at(tmp_path: Path) -> None:
    items = read_items(write(tmp_path, ["item_id,title,in_stock,colour", "a,Tea,no,red"], "i.csv"), DataConfig())
    assert "columns kept as attributes: in_stock, colour" in items.report.notes
    hint = 'Did you mean availability by the column in_stock? Then set availability = "in_stock" in [items.columns].'
    assert [warning for warning in items.report.warnings if "in_stock" in warning] == [hint]
    events = read(write(tmp_path, [HEADER + ",referrer", GOOD[0] + ",x"])).report
    assert "columns not used: referrer" in events.notes
    mapped = DataConfig(items=SourceConfig(columns={"availability": "in_stock"}))
    assert read_items(tmp_path / "i.csv", mapped).frame["availability"].to_list() == ["out_of_stock"]


def test_gbk_is_hinted_at_where_it_may_be(tmp_path: Path) -> None:
    row = f"x,purchase,用户,i1,{T0},1,1".encode("gbk")
    reason = read(write(tmp_path, [HEADER, row])).quarantine["reason"].item()
    assert reason.endswith("convert it: iconv -f GBK -t UTF-8 FILE > NEW_FILE.")
    western = f"x,purchase,Müller,i1,{T0},1,1".encode("latin-1")
    assert "iconv" not in read(write(tmp_path, [HEADER, western])).quarantine["reason"].item()


def test_only_what_looks_like_utf16_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="looks like UTF-16"):
        read(_bytes(tmp_path / "unmarked.csv", HEADER.encode("utf-16-le")))
    with pytest.raises(DataError, match="not UTF-8") as raised:
        read(_bytes(tmp_path / "random.csv", bytes(range(128, 256))))
    assert "UTF-16" not in str(raised.value)


def test_a_folder_is_called_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="This is a folder"):
        read(tmp_path)


IDS = st.sampled_from(["", " ", "a", "b", "ü|x", '"q"', "line\nend", "c,d"])
CELLS = st.tuples(
    IDS,
    st.sampled_from(["view", "purchase", "Search", "dance", ""]),
    IDS,
    IDS,
    st.sampled_from(["", "0", "x", str(T0), str(T0 + 1000), "9" * 30]),
    st.sampled_from(["", "1", "-1", "0", "many", "1e400"]),
    st.sampled_from(["", "1.5", "-0.01", "nan", "1,5"]),
)


def quoted(cells: tuple[str, ...]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' if set(cell) & set('",\n') else cell for cell in cells)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(CELLS, max_size=20), break_one=st.booleans())
def test_whatever_the_rows_they_add_up(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], break_one: bool
) -> None:
    lines: list[str | bytes] = [HEADER, *map(quoted, rows), *([b"\xff"] if break_one else [])]
    path = write(tmp_path_factory.mktemp("rows"), lines)
    result = read(path, DataConfig(clean=CleanConfig(near_duplicate_s=5)), ITEMS)
    assert result.report.rows_in == len(rows) + break_one


def _touch(path: Path) -> Path:
    return _bytes(path, b"")


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
