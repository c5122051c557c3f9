"""Vectors on disk by the hash of their content, so that a second run encodes only what is new.

    folder/
      <digest of the encoder's name and width>/
        shard-<random>.bin      one run's additions: fixed-size records, appended and flushed to disk
    record: key (16 bytes), vector (float32 x dim, little-endian), CRC-32 of both (4 bytes)

Every writer appends to a shard of its own, so several may run at once. What a killed writer left unfinished at a
shard's end does not pass the length or the checksum and is ignored; it will be encoded again. A row of zeros says that
there was nothing to encode, or that the encoder refused the content, and is not kept: each run is told anew.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from endcap.core.errors import CallerError
from endcap.core.protocols import Encoder
from endcap.core.types import Float32Array, Int64Array

Content = TypeVar("Content", str, bytes, Path, bytes | Path)

KEY_BYTES = 16
CRC_BYTES = 4
ENCODED_AT_ONCE = 4096  # texts between two flushes: what an interruption can cost


class Across:
    """What an encoder tells of the part it was given, told on as of all parts. Both it and its cache take it."""

    def __init__(self, told: Callable[[int, int], None]) -> None:
        """told: called with (contents done, contents in all)."""
        self._told, self._before, self._total = told, 0, 0

    def __call__(self, done: int, part: int) -> None:
        self._told(self._before + done, max(self._total, part))

    def part(self, before: int, total: int) -> None:
        """What comes next begins after so many, of so many in all."""
        self._before, self._total = before, total


class CachedEncoder(Generic[Content]):
    """Any encoder, with a memory. The wrapped encoder's `name` must name all that its vectors depend on.

    `encoded` counts the contents that had to be encoded so far, `ignored` the damaged records found when opening.
    """

    def __init__(
        self,
        encoder: Encoder[Content],
        folder: Path,
        *,
        at_once: int = ENCODED_AT_ONCE,
        progress: Across | None = None,
    ) -> None:
        """folder: shared by any number of encoders and runs; created where missing. at_once: contents between two
        flushes. progress: that the encoder was made with."""
        self.name, self.dim = encoder.name, encoder.dim
        self.encoded = 0
        self._at_once, self._progress = at_once, progress
        self._encoder: Encoder[Content] = encoder
        self._folder = folder / _digest(f"{encoder.name}\n{encoder.dim}".encode()).hex()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._shard = self._folder / f"shard-{os.urandom(8).hex()}.bin"
        self._record = np.dtype([("key", "V16"), ("vector", "<f4", (self.dim,)), ("crc", "<u4")])
        self._vectors: list[Float32Array] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self.ignored = sum(self._open(shard) for shard in sorted(self._folder.glob("shard-*.bin")))

    def __len__(self) -> int:
        return len(self._places)

    def encode(self, contents: Sequence[Content]) -> Float32Array:
        """float32 [len(contents), dim]; equal contents are encoded once."""
        keys = [_key(content) for content in contents]
        missing = {key: content for key, content in zip(keys, contents, strict=True) if key not in self._places}
        entries = sorted(missing.items(), key=lambda entry: _size(entry[1]))  # encoders batch like lengths best
        for start in range(0, len(entries), self._at_once):
            part = entries[start : start + self._at_once]
            if self._progress is not None:
                self._progress.part(start, len(entries))
            self._add([key for key, _ in part], self._encoder.encode([content for _, content in part]))
        return self._collect(keys)

    def _collect(self, keys: list[bytes]) -> Float32Array:
        places: Int64Array = np.array([self._places[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        out = np.empty((len(keys), self.dim), dtype=np.float32)
        order = np.argsort(places[:, 0], kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(places[order, 0])) + 1):
            if len(rows):
                out[rows] = self._vectors[places[rows[0], 0]][places[rows, 1]]
        return out

    def _add(self, keys: list[bytes], vectors: Float32Array) -> None:
        """Append to this writer's shard and flush, then remember."""
        if vectors.shape != (len(keys), self.dim):
            raise CallerError(
                f"The encoder gave an array of shape {vectors.shape}, not ({len(keys)}, {self.dim}).",
                where=self.name,
                next_step="Let `encode` return one row of `dim` numbers for each content.",
            )
        records = np.zeros(len(keys), dtype=self._record)
        records["key"] = np.frombuffer(b"".join(keys), dtype="V16")
        records["vector"] = vectors
        records["crc"] = [_crc(row) for row in _rows(records)]
        with self._shard.open("ab") as file:
            file.write(records[np.any(vectors != 0, axis=1)].tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.encoded += len(keys)
        self._remember(records)

    def _open(self, shard: Path) -> int:
        """Read a shard; returns how many records, whole or torn, had to be ignored."""
        content = shard.read_bytes()
        size = self._record.itemsize
        records = np.frombuffer(content, dtype=self._record, count=len(content) // size)
        sound = np.array(
            [_crc(row) == crc for row, crc in zip(_rows(records), records["crc"], strict=True)], dtype=bool
        )
        self._remember(records[sound])
        return int((~sound).sum()) + (len(content) % size > 0)

    def _remember(self, records: NDArray[Any]) -> None:
        block = len(self._vectors)
        self._vectors.append(np.ascontiguousarray(records["vector"], dtype=np.float32))
        self._places.update((key.tobytes(), (block, row)) for row, key in enumerate(records["key"]))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def _key(content: Content) -> bytes:
    """The hash of what is in it; of the path, where the file cannot be read, so that the encoder says what is wrong."""
    if isinstance(content, str):
        return _digest(content.encode("utf-8", "surrogatepass"))
    if isinstance(content, bytes):
        return _digest(content)
    try:
        with content.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=KEY_BYTES)).digest()
    except OSError:
        return _digest(b"\0unreadable\0" + os.fsencode(content))


def _size(content: Content) -> int:
    if isinstance(content, Path):
        return content.stat().st_size if content.is_file() else 0
    return len(content)


def _rows(records: NDArray[Any]) -> Iterator[memoryview]:
    whole = memoryview(records.tobytes())
    size = records.dtype.itemsize
    return (whole[start : start + size] for start in range(0, len(whole), size))


def _crc(record: memoryview) -> int:
    return zlib.crc32(record[:-CRC_BYTES])
