"""The quarantine folder: what was refused is kept, one Parquet file a batch, in the columns of `tables.QUARANTINE`."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import polars as pl

from endcap.core import tables
from endcap.core.artifacts import flush

FOLDER = "quarantine"


def keep(workspace: Path, refused: pl.DataFrame) -> int:
    """Write one more file durably; returns its rows. Callers take turns."""
    if not refused.height:
        return 0
    folder = workspace / FOLDER
    folder.mkdir(exist_ok=True)
    number = max((int(path.stem) for path in _files(workspace)), default=0) + 1
    path = folder / f"{number:06d}.parquet"
    temporary = folder / f".{path.name}.tmp"
    tables.conform(refused, tables.QUARANTINE).write_parquet(temporary, compression="zstd")
    flush(temporary)
    temporary.rename(path)
    flush(folder)
    flush(workspace)
    return refused.height


def scan(workspace: Path) -> pl.LazyFrame:
    """Every refused row, oldest first."""
    paths = _files(workspace)
    return pl.scan_parquet(paths) if paths else tables.empty(tables.QUARANTINE).lazy()


def copy_to(workspace: Path, other: Path) -> None:
    """Copy every file into another store's folder."""
    (other / FOLDER).mkdir(exist_ok=True)
    for path in _files(workspace):
        shutil.copyfile(path, other / FOLDER / path.name)
        flush(other / FOLDER / path.name)


def counts(workspace: Path) -> dict[str, int]:
    """rule -> refused rows, the most frequent first."""
    rules = scan(workspace).select("rule").collect()["rule"].to_list()
    return dict(Counter(rules).most_common())


def _files(workspace: Path) -> list[Path]:
    return sorted((workspace / FOLDER).glob("[0-9]*.parquet"))
