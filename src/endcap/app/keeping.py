"""Backups of a workspace, and the proof that what is on disk is what was written.

A backup is a folder, laid out as a workspace whose store is SQLite, whatever keeps the shop's own:

    backup.json    what it holds, with the size and SHA-256 of every file
    endcap.toml  store/  releases/
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from endcap import __version__
from endcap.app.audit import AuditLog
from endcap.app.config import load_config
from endcap.app.runtime import BACKUP as MANIFEST
from endcap.app.runtime import CONFIG_FILE, Shop
from endcap.core.artifacts import POINTER, FileEntry, ReleaseStore, flush, replace_atomically
from endcap.core.determinism import system_clock
from endcap.core.errors import CallerError, DataError, EndcapError, NotFoundError
from endcap.data import database
from endcap.data.open_store import is_embedded, open_store
from endcap.data.sqlite_store import SqliteStore
from endcap.data.store import Counts, Store
from endcap.data.transfer import transfer

FORMAT = 1


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. files: path within it -> size and checksum. release: the one that was published."""

    format: int = FORMAT
    created_ms: int
    code_version: str
    last_seq: int
    events: int
    items: int
    users: int
    quarantined: int
    releases: int
    release: str | None
    files: dict[str, FileEntry]


def back_up(shop: Shop, out: Path) -> Backup:
    """Write a backup of one moment while others go on writing. CallerError where there is something at `out` already.

    The folder appears under its name when it is complete; only its owner may read it, for the config may hold a
    password.
    """
    if out.exists():
        raise CallerError("There is something here already.", where=str(out), next_step="Name a new folder.")
    beside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True, mode=0o700)
        shutil.copyfile(shop.folder / CONFIG_FILE, beside / CONFIG_FILE)
        # Releases first: one that names events of the log must find them in the copy.
        releases = _copy_releases(shop, beside / "releases")
        shop.store.copy_to(beside / "store")
        with SqliteStore.open_reader(beside / "store") as copied:
            counts, last_seq = copied.counts(), copied.last_seq()
        made = _described(beside, counts, last_seq, shop.clock(), releases)
        replace_atomically(beside / MANIFEST, msgspec.json.format(msgspec.json.encode(made), indent=1))
        beside.rename(out)
        flush(out.absolute().parent)
    except OSError as error:
        raise CallerError(
            f"The backup cannot be written: {error.strerror}.", where=str(out), next_step="Name a folder with space."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return made


def restore(backup: Path, place: Path) -> Backup:
    """Make a workspace from a backup, into the store that its config or the environment names.

    Every file is verified before anything is written. CallerError where the workspace or the database's schema holds
    something already; DataError where the backup is damaged.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CallerError(
            "There is something here already; a backup is never restored over it.",
            where=str(place),
            next_step="Name a new folder after --shop.",
        )
    found = read_backup(backup)
    if damaged := damages(backup, found):
        raise DataError("The backup is damaged: " + " ".join(damaged), where=str(backup), next_step="Take another.")
    config = load_config(backup / CONFIG_FILE).store
    beside = place.absolute().with_name(f".{place.absolute().name}.restoring")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True, mode=0o700)
    try:
        for name in found.files:
            if is_embedded(config) or not name.startswith("store/"):
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(backup / name, beside / name)
                flush(beside / name)
        if not is_embedded(config):
            _load(backup, beside)
        if place.exists():
            place.rmdir()
        beside.rename(place)
        flush(place.absolute().parent)
        AuditLog(place, system_clock).write("restore", str(backup))
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return found


def verify(folder: Path) -> list[str]:
    """A sentence for each thing in a workspace or a backup that is not as it was written; reads every byte.
    ServiceError where the store cannot be looked at now, as one of an older version while its server writes to it."""
    if not (folder / CONFIG_FILE).is_file():
        raise NotFoundError("There is no workspace here.", where=str(folder), next_step="Name one after --shop.")
    is_backup = (folder / MANIFEST).exists()
    problems = damages(folder, read_backup(folder)) if is_backup else []
    try:
        with _store_of(folder) if is_backup else _store_of_shop(folder) as store:
            problems += store.verify()
    except database.NotNowError:
        raise  # which says nothing of what is on disk
    except EndcapError as error:
        problems.append(str(error))
    return problems + _wrong_releases(ReleaseStore(folder / "releases"))


def _store_of_shop(folder: Path) -> Store:
    return open_store(folder / "store", load_config(folder / CONFIG_FILE).store, read_only=True)


@contextmanager
def _store_of(backup: Path) -> Iterator[Store]:
    """A backup's own store, to read. Nothing in a backup changes: the store of an older version is brought up to date
    in a copy, whose segments are links to the backup's."""
    with ExitStack() as stack:
        folder = (backup / "store").absolute()
        if database.is_older(folder):
            copy = Path(stack.enter_context(TemporaryDirectory(prefix="endcap-")))
            with database.translated(copy):
                shutil.copyfile(folder / database.FILE, copy / database.FILE)
                for table in folder.rglob("*.parquet"):
                    place = copy / table.relative_to(folder)
                    place.parent.mkdir(exist_ok=True)
                    place.symlink_to(table)
            folder = copy
        yield stack.enter_context(SqliteStore.open_reader(folder))


def _wrong_releases(releases: ReleaseStore) -> list[str]:
    """A sentence for each release that is not as its manifest says, and where none of that name answers."""
    try:
        names = [manifest.release_id for manifest in releases.list()]
        current = releases.current()
    except EndcapError as error:
        return [str(error)]
    problems = []
    for name in names:
        try:
            releases.open(name)
        except EndcapError as error:
            problems.append(str(error))
    if current is not None and current not in names:
        problems.append(f"{releases.root}: the published release {current} is not there.")
    return problems


def read_backup(folder: Path) -> Backup:
    """What a backup says it holds. NotFoundError where there is none, DataError where it cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFoundError(
            "There is no backup here.", where=str(folder), next_step="Name a folder that `endcap backup` wrote."
        )
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Backup)
    except msgspec.MsgspecError as error:
        raise DataError(f"The backup's list of files cannot be read: {error}.", where=str(path)) from error
    if found.format != FORMAT or any(Path(name).is_absolute() or ".." in Path(name).parts for name in found.files):
        raise DataError(
            f"The backup has format {found.format}, or names files outside; this version reads {FORMAT}.",
            where=str(path),
            next_step="Restore it with the version of Endcap that wrote it.",
        )
    return found


def damages(folder: Path, backup: Backup) -> list[str]:
    """A sentence for each file of a backup that is missing or has changed."""
    return [
        f"{folder / name} is missing or its checksum differs."
        for name, entry in backup.files.items()
        if not (folder / name).is_file() or _entry(folder / name) != entry
    ]


def _copy_releases(shop: Shop, target: Path) -> list[str]:
    """Every complete release, and which one answers. DataError where one is damaged: a backup of it helps nobody."""
    pointer = shop.releases.root / POINTER
    named = pointer.read_bytes() if pointer.is_file() else None  # before the list: what it names is in it
    names = [manifest.release_id for manifest in shop.releases.list()]
    target.mkdir()
    for name in names:
        folder, _ = shop.releases.open(name)
        shutil.copytree(folder, target / name)
    if named is not None:
        (target / POINTER).write_bytes(named)
    return names


def _described(folder: Path, counts: Counts, last_seq: int, now_ms: int, releases: list[str]) -> Backup:
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        flush(path)
        files[path.relative_to(folder).as_posix()] = _entry(path)
    pointer = folder / "releases" / "current"
    return Backup(
        created_ms=now_ms,
        code_version=__version__,
        last_seq=last_seq,
        events=counts.events,
        items=counts.items,
        users=counts.users,
        quarantined=counts.quarantined,
        releases=len(releases),
        release=msgspec.json.decode(pointer.read_bytes())["release"] if pointer.is_file() else None,
        files=files,
    )


def _load(backup: Path, place: Path) -> None:
    """Fill the database that the config or the environment names."""
    config = load_config(place / CONFIG_FILE).store
    with (
        _store_of(backup) as source,
        open_store(place / "store", config, create=True) as target,
    ):
        transfer(source, target)


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
