"""Segments: immutable Parquet files that hold bulk loads of events.

One-row inserts are bounded by SQLite; a bulk load is bounded by the disk. A segment `000001.parquet` holds events in
the columns of `tables.EVENTS`, in order of arrival; its row in SQLite gives the seq of its first and last. Beside it,
`000001.xxh3.npy` holds the XXH3 hashes of its event ids, sorted, uint64 [rows], read through a memory map: it says
without opening the segment that an event id is new. A hit is confirmed in the segment itself.

A segment exists from the moment its row is committed. Files without a row are what a killed writer left behind.
"""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import numpy as np
import polars as pl
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from endcap.core.artifacts import flush
from endcap.core.errors import ServiceError

SEGMENTS = "segments"
ROWS_PER_GROUP = 131_072

Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Segment:
    """One row of the `segments` table. first_seq and last_seq are 0 until the segment is committed."""

    name: str
    rows: int
    bytes: int
    sha256: str
    ids_bytes: int
    ids_sha256: str
    first_seq: int = 0
    last_seq: int = 0


def hash_ids(ids: pl.Series) -> Hashes:
    """uint64 [n]: XXH3 with 64 bits and seed 0 of each id in UTF-8."""
    return np.fromiter(map(xxh3_64_intdigest, ids.cast(pl.Binary).to_list()), np.uint64, len(ids))


def any_at(hashes: Hashes, sorted_hashes: Hashes) -> Mask:
    """bool [n]: True where a hash occurs among the sorted ones."""
    found = np.zeros(len(hashes), np.bool_)
    if not len(sorted_hashes):
        return found
    # Searched in ascending order, because a random order would miss the processor's cache at every step.
    order = np.argsort(hashes)
    ascending = hashes[order]
    places = np.minimum(np.searchsorted(sorted_hashes, ascending), len(sorted_hashes) - 1)
    found[order] = sorted_hashes[places] == ascending
    return found


def list_segments(connection: apsw.Connection) -> list[Segment]:
    """The committed segments, oldest first."""
    rows = connection.execute(
        "SELECT name, last_seq - first_seq + 1, bytes, sha256, ids_bytes, ids_sha256, first_seq, last_seq"
        " FROM segments ORDER BY last_seq"
    )
    return [Segment(*row) for row in rows]


def in_order(live: pl.DataFrame, segments: list[tuple[Segment, pl.LazyFrame]], since_seq: int) -> pl.LazyFrame:
    """Segments and the live events between them, one after the other by seq."""
    parts: list[pl.LazyFrame] = []
    seqs, start = live["seq"], 0
    for segment, scan in segments:
        end = int(seqs.search_sorted(segment.first_seq))
        parts.append(live.slice(start, end - start).lazy())
        parts.append(scan if segment.first_seq > since_seq else scan.filter(pl.col("seq") > since_seq))
        start = end
    parts.append(live.slice(start).lazy())
    return pl.concat(parts)


class SegmentFiles:
    """The files of the `segments` folder, and the hashes of the ids in those that are committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / SEGMENTS
        self._indexes: list[tuple[Segment, Hashes]] = []

    @property
    def any_committed(self) -> bool:
        return bool(self._indexes)

    def reload(self, connection: apsw.Connection) -> None:
        """Map the ids of the committed segments; a missing or cut file is an error at once, not at the first read."""
        known = {segment.name: (segment, hashes) for segment, hashes in self._indexes}
        segments = list_segments(connection)
        for segment in segments:
            self._check_size(segment)
        self._indexes = [known.get(segment.name) or (segment, self._map(segment)) for segment in segments]

    def write(self, frame: pl.DataFrame, hashes: Hashes | None, number: int) -> tuple[Segment, Hashes]:
        """Write a segment's two files durably under their final names. Invisible until `commit`. hashes: of the ids,
        uint64 [rows]; worked out while the events are written, if left out. Returns them sorted, too."""
        self.folder.mkdir(exist_ok=True)
        name = f"{number:06d}"
        events, ids = self.events_path(name), self.ids_path(name)
        beside = [path.with_name(f".{path.name}.tmp") for path in (events, ids)]
        try:
            with ThreadPoolExecutor(1) as beside_it:
                worked_out = beside_it.submit(hash_ids, frame["event_id"]) if hashes is None else None
                frame.write_parquet(beside[0], compression="zstd", compression_level=1, row_group_size=ROWS_PER_GROUP)
            if worked_out is not None:
                hashes = worked_out.result()
            assert hashes is not None
            ordered: Hashes = np.sort(hashes)
            with beside[1].open("wb") as file:
                np.save(file, ordered)
            for temporary, path in zip(beside, (events, ids), strict=True):
                flush(temporary)
                temporary.rename(path)
        except BaseException:
            # On a full disk the part that was written would take the space that is needed to go on.
            for path in (*beside, events, ids):
                path.unlink(missing_ok=True)
            raise
        flush(self.folder)
        flush(self.folder.parent)
        sums = _sha256(events), _sha256(ids)
        return Segment(name, frame.height, events.stat().st_size, sums[0], ids.stat().st_size, sums[1]), ordered

    def commit(self, connection: apsw.Connection, segment: Segment, first_seq: int) -> Segment:
        """Insert the segment's row; must run inside the transaction that makes it visible."""
        whole = replace(segment, first_seq=first_seq, last_seq=first_seq + segment.rows - 1)
        row = (whole.last_seq, first_seq, whole.name, whole.bytes, whole.sha256, whole.ids_bytes, whole.ids_sha256)
        connection.execute(
            "INSERT INTO segments (last_seq, first_seq, name, bytes, sha256, ids_bytes, ids_sha256)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        self._indexes.append((whole, self._map(whole)))
        return whole

    def hash_again(self, connection: apsw.Connection) -> None:
        """Write the hashes of every committed segment's ids anew from its events, and commit to them in the open
        transaction. Earlier files of hashes belong to nobody from then on, and are swept by the writer. ServiceError
        for events that are not those that were committed: nothing is changed then."""
        for segment in list_segments(connection):
            events = self.events_path(segment.name)
            if not events.is_file() or _sha256(events) != segment.sha256:
                raise _damaged(events)
            ids = pl.read_parquet(events, columns=["event_id"])["event_id"]
            path = self.ids_path(segment.name)
            with path.open("wb") as file:
                np.save(file, np.sort(hash_ids(ids)))
            flush(path)
            connection.execute(
                "UPDATE segments SET ids_bytes = ?, ids_sha256 = ? WHERE name = ?",
                (path.stat().st_size, _sha256(path), segment.name),
            )
        if self.folder.is_dir():
            flush(self.folder)

    def discard(self, segment: Segment) -> None:
        """Remove the files of a segment that was not committed."""
        self.events_path(segment.name).unlink(missing_ok=True)
        self.ids_path(segment.name).unlink(missing_ok=True)

    def sweep(self, connection: apsw.Connection) -> list[str]:
        """Remove every file that no committed segment owns; returns their names. Only for the writer."""
        if not self.folder.is_dir():
            return []
        owned = {
            path.name
            for segment in list_segments(connection)
            for path in (self.events_path(segment.name), self.ids_path(segment.name))
        }
        orphans = sorted(path for path in self.folder.iterdir() if path.name not in owned)
        for path in orphans:
            path.unlink()
        return [path.name for path in orphans]

    def holding(self, ids: pl.Series, hashes: Hashes) -> Mask:
        """bool [n]: True where a committed segment holds the id."""
        held = np.zeros(len(ids), np.bool_)
        for segment, known in list(self._indexes):
            hits = np.flatnonzero(any_at(hashes, known))
            if len(hits):
                held[hits] |= self.confirmed(segment.name, ids.gather(hits))
        return held

    def confirmed(self, name: str, ids: pl.Series) -> Mask:
        """bool [n]: True where the segment really holds the id: two ids may share a hash."""
        wanted = ids.alias("event_id").to_frame().lazy()
        stored = pl.scan_parquet(self.events_path(name)).select("event_id")
        found = stored.join(wanted, on="event_id", how="semi").collect()["event_id"]
        held: Mask = ids.is_in(found.implode()).to_numpy()
        return held

    def scan(self, segment: Segment) -> pl.LazyFrame:
        """The segment's events with their seq."""
        rows = pl.scan_parquet(self.events_path(segment.name), row_index_name="seq", row_index_offset=segment.first_seq)
        return rows.select(pl.exclude("seq"), pl.col("seq").cast(pl.Int64))

    def copy_to(self, store: Path, segments: list[Segment]) -> None:
        """Copy the files of some segments into the folder of another store."""
        target = SegmentFiles(store)
        target.folder.mkdir(exist_ok=True)
        for segment in segments:
            for path in (self.events_path(segment.name), self.ids_path(segment.name)):
                shutil.copyfile(path, target.folder / path.name)
                flush(target.folder / path.name)
        flush(target.folder)

    def verify(self, connection: apsw.Connection) -> list[str]:
        """A sentence for each file whose checksum differs from what was committed."""
        return [
            f"{path}: {'missing' if not path.is_file() else 'the checksum differs from what was committed'}"
            for segment in list_segments(connection)
            for path, sha256 in (
                (self.events_path(segment.name), segment.sha256),
                (self.ids_path(segment.name), segment.ids_sha256),
            )
            if not path.is_file() or _sha256(path) != sha256
        ]

    def events_path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def ids_path(self, name: str) -> Path:
        return self.folder / f"{name}.xxh3.npy"

    def _map(self, segment: Segment) -> Hashes:
        hashes: Hashes = np.load(self.ids_path(segment.name), mmap_mode="r", allow_pickle=False)
        return hashes

    def _check_size(self, segment: Segment) -> None:
        for path, size in (
            (self.events_path(segment.name), segment.bytes),
            (self.ids_path(segment.name), segment.ids_bytes),
        ):
            if not path.is_file() or path.stat().st_size != size:
                raise _damaged(path)


def _damaged(path: Path) -> ServiceError:
    return ServiceError(
        "The segment is missing or not what was committed.", where=str(path), next_step="Restore it from a backup."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
