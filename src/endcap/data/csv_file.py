"""CSV as text columns: polars' own reader for a well-formed file, a tolerant one where something is wrong.

One pass over the bytes decides which. Well-formed means: UTF-8, no line too long, every record with as many fields as
the header, quotes only around whole fields (RFC 4180; line ends within quotes are fine), no blank lines. The tolerant
reader accepts the same rows and turns each of the others into a fault; blank lines are no rows.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.core.errors import DataError
from endcap.data.lines import LINE, Fault, RawRows, TextLine, empty_file, free_name, open_bytes, text_blocks, text_lines

BLOCK_BYTES = 4 << 20
NEWLINE, QUOTE = 10, 34
ROW_INDEX = "endcap.row"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
UTF16_SAMPLE_BYTES = 256


def scan_csv(path: Path, delimiter: str, max_line_bytes: int) -> pl.LazyFrame:
    """Columns as the header names them, all String, plus `line`: the physical line a record starts on.

    A column without a name is called `column_N`. Raises DataError for an empty file, an unreadable or repeated header
    and a damaged gzip stream.
    """
    splitter = _Splitter(delimiter)
    header = _header(path, splitter, max_line_bytes)
    survey = _survey(path, len(header), delimiter, max_line_bytes)
    if survey is None:
        return _read_tolerantly(path, header, splitter, max_line_bytes).lazy()
    scanned = pl.scan_csv(
        path, separator=delimiter, infer_schema=False, glob=False, row_index_name=ROW_INDEX, row_index_offset=0
    )
    named = dict(zip(scanned.collect_schema().names(), [ROW_INDEX, *header], strict=True))
    line = pl.col(ROW_INDEX).cast(pl.Int64()) + 2
    if survey.lines is not None:
        starts = survey.lines
        line = pl.col(ROW_INDEX).map_batches(
            lambda rows: pl.Series(starts[rows.to_numpy()]), return_dtype=pl.Int64(), is_elementwise=True
        )
    return scanned.rename(named).with_columns(line.alias(LINE)).drop(ROW_INDEX)


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the pass over a well-formed file found. lines: where each record starts; None: one record a line."""

    lines: NDArray[np.int64] | None


class _Splitter:
    """Splits one record into fields."""

    def __init__(self, delimiter: str) -> None:
        mark = re.escape(delimiter)
        self._delimiter = delimiter
        self._field = re.compile(rf'(?:"([^"]*+(?:""[^"]*+)*+)"|([^{mark}"][^{mark}]*+|))(?={mark}|\Z)')
        self._open = re.compile(r'"[^"]*+(?:""[^"]*+)*+\Z')

    def split(self, text: str) -> list[str | None]:
        """The fields; an empty one is None. Raises _OpenQuoteError, or ValueError for a quote out of place."""
        if '"' not in text:
            return [field or None for field in text.split(self._delimiter)]
        fields: list[str | None] = []
        at = 0
        while True:
            found = self._field.match(text, at)
            if found is None:
                raise _OpenQuoteError if self._open.match(text, at) else ValueError
            quoted, plain = found.groups()
            fields.append((plain if quoted is None else quoted.replace('""', '"')) or None)
            at = found.end() + 1
            if at > len(text):
                return fields


class _OpenQuoteError(Exception):
    """A quoted field is still open at the end of the text."""


def _header(path: Path, splitter: _Splitter, max_line_bytes: int) -> list[str]:
    first = next(text_lines(path, max_line_bytes), None)
    if first is None or (isinstance(first, TextLine) and not first.text.strip()):
        raise empty_file(path)
    advice = "Write the file as UTF-8 CSV with one line of column names."
    if isinstance(first, Fault) or "\0" in first.text:
        reason = first.reason if isinstance(first, Fault) else "It holds zero bytes."
        encoding = " It looks like UTF-16." if _is_like_utf16(path) else ""
        raise DataError(f"The header cannot be read. {reason}{encoding}", where=f"{path}, line 1", next_step=advice)
    try:
        fields = splitter.split(first.text)
    except (_OpenQuoteError, ValueError) as error:
        raise DataError("A quote in the header is out of place.", where=f"{path}, line 1", next_step=advice) from error
    if "\r" in first.text:
        raise DataError("The lines end in bare carriage returns.", where=f"{path}, line 1", next_step=advice)
    names = [free_name((field or "").strip()) or f"column_{at}" for at, field in enumerate(fields, 1)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"The header names a column more than once: {', '.join(repeated)}.",
            where=f"{path}, line 1",
            next_step="Rename or remove one of them; which is meant cannot be guessed.",
        )
    return names


def _is_like_utf16(path: Path) -> bool:
    """Whether the file begins with the mark of UTF-16, or many of its first bytes are zero."""
    with open_bytes(path) as file:
        start = file.read(UTF16_SAMPLE_BYTES)
    return start.startswith(UTF16_MARKS) or start.count(0) * 4 > len(start)


def _survey(path: Path, width: int, delimiter: str, max_line_bytes: int) -> _Survey | None:
    """None where something is wrong. Reads every byte once, so a broken gzip stream is found here."""
    starts: list[NDArray[np.int64]] = []
    lines_before, spread, well_formed = 0, False, True
    pending = b""
    for fresh in text_blocks(path, BLOCK_BYTES):
        if not well_formed:
            continue  # still to be unpacked to its end: a truncated file is refused whole
        block = pending + fresh
        pending = b""
        if block.count(b'"') % 2 and len(block) <= BLOCK_BYTES * 4:
            pending = block
            continue
        found = _record_starts(block, width, ord(delimiter), max_line_bytes)
        if found is None:
            well_formed = False
            continue
        starts.append(found + lines_before + 1)
        newlines = block.count(b"\n") + (not block.endswith(b"\n"))
        spread |= newlines != len(found)
        lines_before += newlines
    if pending or not well_formed:
        return None
    return _Survey(np.concatenate(starts)[1:] if spread else None)


def _record_starts(block: bytes, width: int, delimiter: int, max_line_bytes: int) -> NDArray[np.int64] | None:
    """int64 [records]: physical lines of the block before each record; None if the block is not well-formed."""
    if not block.endswith(b"\n"):
        block += b"\n"
    if not _is_utf8(block) or block.count(b"\r") != block.count(b"\r\n"):
        return None
    content = np.frombuffer(block, np.uint8)
    newlines = np.flatnonzero(content == NEWLINE)
    if int(np.diff(newlines, prepend=-1).max()) - 1 > max_line_bytes:
        return None
    marks = np.flatnonzero(content == delimiter)
    ends = newlines
    if b'"' in block:
        quotes = np.flatnonzero(content == QUOTE)
        if not _quotes_enclose_fields(content, quotes, delimiter):
            return None
        ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
        marks = marks[np.searchsorted(quotes, marks) % 2 == 0]
    begins = np.concatenate([[0], ends[:-1] + 1])
    blank = (ends == begins) | ((ends == begins + 1) & (content[begins] == 13))
    if blank.any() or len(marks) != (width - 1) * len(ends):
        return None
    if width > 1:
        table = marks.reshape(len(ends), width - 1)
        if (table[:, 0] < begins).any() or (table[:, -1] > ends).any():
            return None
    return np.searchsorted(newlines, begins).astype(np.int64)


def _quotes_enclose_fields(content: NDArray[np.uint8], quotes: NDArray[np.intp], delimiter: int) -> bool:
    """Each opening quote stands at a field's start or after a closing one (that pair is an escaped quote); each closing
    one stands at a field's end or before an opening one."""
    openers, closers = quotes[0::2], quotes[1::2]
    edges = np.array([delimiter, NEWLINE, QUOTE], np.uint8)
    before = content[openers - 1][openers > 0]
    after = content[np.minimum(closers + 1, len(content) - 1)]
    return len(openers) == len(closers) and bool(np.isin(before, edges).all() and np.isin(after, [*edges, 13]).all())


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class _Lines:
    """Physical lines, with the ability to put some back."""

    def __init__(self, lines: Iterator[TextLine | Fault]) -> None:
        self._lines = lines
        self._ahead: deque[TextLine | Fault] = deque()

    def take(self) -> TextLine | Fault | None:
        return self._ahead.popleft() if self._ahead else next(self._lines, None)

    def put_back(self, lines: Sequence[TextLine | Fault]) -> None:
        self._ahead.extendleft(reversed(lines))

    def take_through_quote(self, budget: int) -> list[TextLine]:
        """The next lines up to one that holds a quote, as far as they are readable and fit the budget of characters."""
        taken: list[TextLine] = []
        while (line := self.take()) is not None:
            if isinstance(line, Fault) or len(line.text) > budget:
                self.put_back([line])
                break
            taken.append(line)
            budget -= len(line.text) + 1
            if '"' in line.text:
                break
        return taken


def _read_tolerantly(path: Path, header: list[str], splitter: _Splitter, max_line_bytes: int) -> pl.DataFrame:
    rows = RawRows(header)
    lines = _Lines(text_lines(path, max_line_bytes))
    lines.take()
    while (line := lines.take()) is not None:
        if isinstance(line, Fault):
            rows.refuse(line)
            continue
        if not line.text:
            continue
        fields = _fields(line, lines, splitter, max_line_bytes)
        if isinstance(fields, Fault):
            rows.refuse(fields)
        elif len(fields) != len(header):
            reason = f"The row has {len(fields)} fields; the header has {len(header)}."
            rows.refuse(Fault(line.line, "malformed", reason, line.text))
        else:
            rows.add(line.line, dict(zip(header, fields, strict=True)))
    return rows.frame()


def _fields(first: TextLine, lines: _Lines, splitter: _Splitter, max_line_bytes: int) -> list[str | None] | Fault:
    """The fields of the record that starts on `first`. If it fails, only that line is spent; later ones go back."""
    text, taken = first.text, list[TextLine]()
    while True:
        try:
            return splitter.split(text)
        except ValueError:
            reason = "A closing quote is followed by more text."
            break
        except _OpenQuoteError:
            more = lines.take_through_quote(max_line_bytes - len(text))
            taken += more
            if not more or '"' not in more[-1].text:
                reason = "A quoted field is opened and never closed."
                break
            text = "\n".join([text, *(line.text for line in more)])
    lines.put_back(taken)
    return Fault(first.line, "malformed", reason, first.text)
