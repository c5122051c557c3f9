"""Releases: immutable folders with a manifest, published by swapping one pointer.

    releases/
      20260101T120000-3fa9c1/   manifest.json and whatever the release holds
      .staging-…/               being written; never read, removed when its writer is gone
      current                   JSON: the published id, and those published before it

A release is written in a staging folder, every file is flushed to disk, and the folder is renamed into place. Readers
therefore see a whole release or none, whatever moment the writer is killed at.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from endcap.core.errors import ArtifactError, NotFoundError

FORMAT = 1
MANIFEST = "manifest.json"
POINTER = "current"
STAGING = ".staging-"


class FileEntry(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a release is and where it came from.

    data: fingerprint and counts of what it was trained on. files: relative path -> size and checksum.
    """

    format: int = FORMAT
    release_id: str = ""
    created_ms: int = 0
    code_version: str
    seed: int
    config: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, float]
    files: dict[str, FileEntry] = {}


class _Pointer(msgspec.Struct, frozen=True):
    release: str
    previous: list[str] = []


class ReleaseStore:
    """The releases of one workspace. Any number of readers, one writer at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A fresh folder to write a release into; removed again unless `commit` took it."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        folder = self.root / f"{STAGING}{os.getpid()}-{os.urandom(3).hex()}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, staged: Path, manifest: Manifest, *, now_ms: int) -> Manifest:
        """Checksum and flush every file, write the manifest, rename into place. Does not publish."""
        files = {
            path.relative_to(staged).as_posix(): FileEntry(path.stat().st_size, _sha256(path))
            for path in sorted(staged.rglob("*"))
            if path.is_file()
        }
        stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S")
        digest = hashlib.sha256("".join(entry.sha256 for entry in files.values()).encode()).hexdigest()[:6]
        release_id = self._free_id(f"{stamp}-{digest}")
        whole = msgspec.structs.replace(manifest, release_id=release_id, created_ms=now_ms, files=files)
        (staged / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=1))
        for path in staged.rglob("*"):
            flush(path)
        flush(staged)
        staged.rename(self.root / release_id)
        flush(self.root)
        return whole

    def publish(self, release_id: str) -> None:
        """Make a release the current one. The pointer file is replaced in one step."""
        self.manifest(release_id)
        pointer = self._pointer()
        if pointer is None:
            self._point(_Pointer(release_id))
        elif pointer.release != release_id:
            self._point(_Pointer(release_id, [*pointer.previous, pointer.release]))
        else:
            self._point(pointer)  # whoever could not load it tries again

    def rollback(self) -> str:
        """Go back to the release published before the current one; returns its id."""
        pointer = self._pointer()
        if pointer is None or not pointer.previous:
            raise NotFoundError("There is no earlier release to go back to.", next_step=self._see_releases())
        self._point(_Pointer(pointer.previous[-1], pointer.previous[:-1]))
        return pointer.previous[-1]

    def current(self) -> str | None:
        """The published release's id, or None before the first publish."""
        pointer = self._pointer()
        return pointer.release if pointer else None

    def list(self) -> list[Manifest]:
        """Every complete release, oldest first."""
        if not self.root.is_dir():
            return []
        found = [
            self.manifest(path.parent.name) for path in self.root.glob(f"*/{MANIFEST}") if path.parent.name[0] != "."
        ]
        return sorted(found, key=lambda manifest: (manifest.created_ms, manifest.release_id))

    def manifest(self, release_id: str) -> Manifest:
        path = self.root / release_id / MANIFEST
        if Path(release_id).name != release_id or release_id.startswith(".") or not path.is_file():
            raise NotFoundError(f"There is no release {release_id!r}.", next_step=self._see_releases())
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except msgspec.MsgspecError as error:
            raise ArtifactError(f"The manifest cannot be read: {error}.", where=str(path)) from error
        if manifest.format != FORMAT:
            raise ArtifactError(
                f"The release has format {manifest.format}; this version reads {FORMAT}.",
                where=str(path),
                next_step=f"Train again with this version: endcap train --shop {self.workspace}",
            )
        return manifest

    def open(self, release_id: str) -> tuple[Path, Manifest]:
        """The folder and manifest of a release, every file's size and checksum verified."""
        manifest = self.manifest(release_id)
        folder = self.root / release_id
        for name, entry in manifest.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry.bytes or _sha256(path) != entry.sha256:
                raise ArtifactError(
                    "The file is missing or its checksum differs from the manifest.",
                    where=str(path),
                    next_step="Restore it from a backup, or go back to an earlier release: "
                    f"endcap rollback --shop {self.workspace}",
                )
        return folder, manifest

    @property
    def workspace(self) -> Path:
        """The workspace whose releases these are, for sentences."""
        return self.root.parent

    def _see_releases(self) -> str:
        return f"See what there is: endcap releases --shop {self.workspace}"

    def _free_id(self, release_id: str) -> str:
        """The id itself, or the id with a counter, where two equal releases are committed within one second."""
        free, count = release_id, 1
        while (self.root / free).exists():
            count += 1
            free = f"{release_id}-{count}"
        return free

    def _pointer(self) -> _Pointer | None:
        path = self.root / POINTER
        if not path.exists():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Pointer)
        except msgspec.MsgspecError as error:
            raise ArtifactError(
                f"The release pointer cannot be read: {error}.",
                where=str(path),
                next_step=f"Publish a release again: endcap publish RELEASE --shop {self.workspace}",
            ) from error

    def _point(self, pointer: _Pointer) -> None:
        replace_atomically(self.root / POINTER, msgspec.json.encode(pointer))

    def _sweep(self) -> None:
        """Remove what writers that are gone left behind."""
        for folder in self.root.glob(f"{STAGING}*"):
            writer = folder.name.removeprefix(STAGING).split("-")[0]
            if not (writer.isdigit() and _alive(int(writer))):
                shutil.rmtree(folder, ignore_errors=True)


def replace_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers, and a restart after a crash, see the old content or the new, never a part."""
    write_atomically(path, lambda beside: beside.write_bytes(content))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """As `replace_atomically`, where what writes wants a path: one beside, which then takes the place of `path`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        flush(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
