"""Stores as earlier versions of Endcap left them."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import polars as pl

from endcap.data import database


def make_version_2(folder: Path) -> None:
    """Take a closed store back to schema version 2: its segments' ids were hashed by blake2b, in `000001.ids.npy`."""
    segments = folder / "segments"
    with closing(apsw.Connection(str(folder / database.FILE))) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM segments").fetchall():
            ids = pl.read_parquet(segments / f"{name}.parquet", columns=["event_id"])["event_id"]
            digests = b"".join(hashlib.blake2b(each.encode(), digest_size=8).digest() for each in ids)
            path = segments / f"{name}.ids.npy"
            np.save(path, np.sort(np.frombuffer(digests, "<u8")))
            connection.execute(
                "UPDATE segments SET ids_bytes = ?, ids_sha256 = ? WHERE name = ?",
                (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest(), name),
            )
            (segments / f"{name}.xxh3.npy").unlink()
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
