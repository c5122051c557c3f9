"""Physical lines of a text file, gzipped or not, with what is wrong with them said rather than hidden.

A line that is too long or is not UTF-8 becomes a `Fault`; a gzip stream that breaks off stops the whole file, because
what is missing cannot be known. `RawRows` gathers good rows and faults into the frame every reader returns.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import polars as pl

from endcap.core.errors import CallerError, DataError

LINE, ROW = "line", "row"
FAULT_RULE, FAULT_REASON, FAULT_RAW = "fault_rule", "fault_reason", "fault_raw"
FAULTS = (FAULT_RULE, FAULT_REASON, FAULT_RAW)
RESERVED = frozenset({LINE, ROW, *FAULTS})
SHOWN_CHARS = 200
FLUSH_ROWS = 100_000
BOM = b"\xef\xbb\xbf"
FIRST_HIGH_BYTE = 0x80


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that could not be read as a row."""

    line: int
    rule: str
    reason: str
    raw: str


class TextLine(NamedTuple):
    """One physical line, its end removed. line: 1-based. A named tuple, for one is made per line of a file."""

    line: int
    text: str


def text_lines(path: Path, max_line_bytes: int) -> Iterator[TextLine | Fault]:
    """Every physical line in order. Memory is bounded by `max_line_bytes`. A byte-order mark is dropped."""
    with open_bytes(path) as file:
        number = 0
        while chunk := file.readline(max_line_bytes + 2):
            number += 1
            content = chunk.removeprefix(BOM) if number == 1 else chunk
            if len(content.rstrip(b"\r\n")) > max_line_bytes:
                length = len(content) + _skip_rest(file, chunk)
                yield _too_long(number, content, length, max_line_bytes)
                continue
            yield _decoded(number, content.rstrip(b"\r\n"))


def text_blocks(path: Path, block_bytes: int) -> Iterator[bytes]:
    """The file in blocks that end at a line end, or at the end of the file. A byte-order mark is dropped."""
    with open_bytes(path) as file:
        first = True
        while block := file.read(block_bytes):
            block += file.readline(block_bytes)
            yield block.removeprefix(BOM) if first else block
            first = False


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open for reading; `.gz` is unpacked. A damaged or truncated gzip stream becomes a DataError naming the place."""
    require_file(path)
    if path.suffix != ".gz":
        with path.open("rb") as plain:
            yield plain
        return
    with gzip.open(path, "rb") as packed:
        counted = _Counted(cast(BinaryIO, packed))
        try:
            yield cast(BinaryIO, counted)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"The gzip stream is truncated or damaged after {counted.bytes} unpacked bytes "
                f"(last good line: {counted.lines}): {error}",
                where=str(path),
                next_step="Nothing was read from it. Fetch or write the file again, then repeat the run.",
            ) from error


def require_file(path: Path) -> None:
    """Refuse a path that is not a file, or a file without a byte."""
    if path.is_dir():
        raise CallerError("This is a folder.", where=str(path), next_step="Name a file in it.")
    if not path.is_file():
        raise CallerError("There is no such file.", where=str(path), next_step="Check the path.")
    if path.stat().st_size == 0:
        raise empty_file(path)


def empty_file(path: Path) -> DataError:
    return DataError("The file is empty.", where=str(path), next_step="Export it again, or leave it out of the run.")


def free_name(name: str) -> str:
    """The name of a file's column, changed where it would be taken for one that readers add."""
    return f"{name} (file)" if name in RESERVED else name


class RawRows:
    """Gathers rows as text and faults, and turns them into one frame. Columns are the union of those seen."""

    def __init__(self, columns: list[str] | None = None) -> None:
        self._columns = columns or []
        self._done: list[pl.DataFrame] = []
        self._rows: list[Mapping[str, str | None]] = []
        self._lines: list[int] = []
        self._faults: dict[int, Fault] = {}

    def add(self, line: int, row: Mapping[str, str | None]) -> None:
        self._rows.append(row)
        self._lines.append(line)
        if len(self._rows) >= FLUSH_ROWS:
            self._flush()

    def refuse(self, fault: Fault) -> None:
        self._faults[len(self._rows)] = fault
        self.add(fault.line, {})

    def frame(self) -> pl.DataFrame:
        """All columns String, plus `line`, plus the fault columns where there is a fault."""
        self._flush()
        return pl.concat(self._done, how="diagonal")

    def _flush(self) -> None:
        columns = dict.fromkeys(self._columns)
        for row in self._rows:
            columns.update(dict.fromkeys(row))
        cells = [pl.Series(name, [row.get(name) for row in self._rows], pl.String()) for name in columns]
        frame = pl.DataFrame([*cells, pl.Series(LINE, self._lines, pl.Int64())])
        if self._faults:
            frame = frame.with_columns(self._fault_series())
        self._columns = list(columns)
        self._done.append(frame)
        self._rows, self._lines, self._faults = [], [], {}

    def _fault_series(self) -> list[pl.Series]:
        rules: list[str | None] = [None] * len(self._rows)
        reasons, raws = rules.copy(), rules.copy()
        for at, fault in self._faults.items():
            rules[at], reasons[at], raws[at] = fault.rule, fault.reason, fault.raw
        columns = zip(FAULTS, (rules, reasons, raws), strict=True)
        return [pl.Series(name, values, pl.String()) for name, values in columns]


class _Counted:
    """A binary file that knows how much of it has been handed out, to name the place where it breaks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0
        self.lines = 0

    def read(self, size: int) -> bytes:
        return self._count(self._file.read(size))

    def readline(self, size: int) -> bytes:
        return self._count(self._file.readline(size))

    def _count(self, content: bytes) -> bytes:
        self.bytes += len(content)
        self.lines += content.count(b"\n")
        return content


def _skip_rest(file: BinaryIO, chunk: bytes) -> int:
    skipped = 0
    while chunk and not chunk.endswith(b"\n"):
        chunk = file.readline(1 << 20)
        skipped += len(chunk)
    return skipped


def _too_long(number: int, content: bytes, length: int, max_line_bytes: int) -> Fault:
    return Fault(
        number,
        "line_too_long",
        f"The line has {length} bytes; max_line_bytes allows {max_line_bytes}.",
        content[: SHOWN_CHARS * 4].decode("utf-8", "replace")[:SHOWN_CHARS],
    )


def _decoded(number: int, content: bytes) -> TextLine | Fault:
    try:
        return TextLine(number, content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault(
            number,
            "encoding",
            f"The line is not UTF-8: byte {error.start + 1} of it is 0x{content[error.start]:02x}."
            + _encoding_hint(content, error.start),
            content.decode("utf-8", "replace"),
        )


def _encoding_hint(content: bytes, at: int) -> str:
    """A sentence where the bytes may be Chinese in GBK or GB 18030. A lone high byte is rather a Western letter."""
    if min(content[at : at + 2]) < FIRST_HIGH_BYTE:
        return ""
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return " If the file is GBK, convert it: iconv -f GBK -t UTF-8 FILE > NEW_FILE."
