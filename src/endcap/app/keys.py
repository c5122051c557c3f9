"""API keys: made once, shown once, kept as hashes, taken back at any moment.

A key is `endcap_<id>_<secret>`. The secret is 256 random bits, so there is nothing to guess that a slow hash would
protect: one SHA-256 is enough, and it is compared in constant time. The file is replaced as a whole and read again when
it has changed, so every process that serves the workspace knows of a revocation at its next request.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from endcap.app.audit import AuditLog
from endcap.core.artifacts import write_atomically
from endcap.core.determinism import Clock, system_clock
from endcap.core.errors import CallerError, NotFoundError, ServiceError

FILE = "keys.json"
LOCK = "keys.lock"
PREFIX = "endcap"
DAY_MS = 86_400_000
MAX_DAYS = 36_500
MAX_NAME = 100
SECRET_BYTES = 32
LOCK_TIMEOUT_MS = 10_000


class Scope(StrEnum):
    """What a key may be used for. None of them holds another: a key that is to do all has all three."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Key(msgspec.Struct, frozen=True):
    """What is kept of a key. sha256: of the whole token, in hex. Times: UTC milliseconds; None: not yet, or never."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def is_good(self, token: str, now_ms: int) -> bool:
        """Whether the token is this key, and the key still counts."""
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        return hmac.compare_digest(given, self.sha256) and self.is_in_force(now_ms)

    def is_in_force(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


class Made(NamedTuple):
    """A new key and its token, which is kept nowhere."""

    key: Key
    token: str


class Keys:
    """The keys of one workspace."""

    def __init__(self, folder: Path, audit: AuditLog, clock: Clock = system_clock) -> None:
        self.path, self._folder, self._audit, self._clock = folder / FILE, folder, audit, clock
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, Key] = {}
        self._were_there = False

    def known(self) -> dict[str, Key]:
        """id -> key, those that are revoked or expired among them; read again only where the file has changed.
        ServiceError where it cannot be read, or is gone since it was: nobody is let in on a guess."""
        try:
            found = self.path.stat()
        except FileNotFoundError as error:
            if not self._were_there:
                return {}
            raise self._unreadable("the file is gone") from error
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        self._were_there = True
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen != self._seen:
            self._known = {key.id: key for key in self._read()}
            self._seen = seen
        return self._known

    def create(self, name: str, scopes: Iterable[str], expires_days: int | None = None) -> Made:
        """A new key. name: what uses it, for the list. CallerError for scopes there are not, and none."""
        allowed = _scopes(scopes)
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            raise CallerError(
                f"{name!r} is no name for a key.",
                where="name",
                next_step=f"Say in at most {MAX_NAME} letters what will use it.",
            )
        if expires_days is not None and not 1 <= expires_days <= MAX_DAYS:
            raise CallerError(
                f"A key cannot expire after {expires_days} days.",
                where="expires_days",
                next_step=f"Choose 1 to {MAX_DAYS}, or leave it out: it then lasts until it is revoked.",
            )
        key_id, now_ms = secrets.token_hex(6), self._clock()
        token = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
        expires_ms = None if expires_days is None else now_ms + expires_days * DAY_MS
        digest = hashlib.sha256(token.encode()).hexdigest()
        key = Key(key_id, name.strip(), allowed, digest, now_ms, expires_ms)
        with self._audit.act("create key", f"{key_id} ({key.name}: {','.join(allowed)})"), self._changing() as keys:
            keys[key_id] = key
        return Made(key, token)

    def revoke(self, key_id: str) -> Key:
        """Take a key back. It stays in the list; revoking it again changes nothing. NotFoundError for one unknown."""
        with self._audit.act("revoke key", key_id), self._changing() as keys:
            if key_id not in keys:
                raise NotFoundError(
                    f"There is no key {key_id!r}.",
                    where=str(self._folder),
                    next_step=f"See what there is: endcap keys list --shop {self._folder}",
                )
            if keys[key_id].revoked_ms is None:
                keys[key_id] = msgspec.structs.replace(keys[key_id], revoked_ms=self._clock())
            return keys[key_id]

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys, to be changed by one process at a time, and written when all went well."""
        try:
            with closing(apsw.Connection(str(self._folder / LOCK))) as lock:
                lock.set_busy_timeout(LOCK_TIMEOUT_MS)
                lock.execute("BEGIN EXCLUSIVE")
                keys = {key.id: key for key in self._read()} if self.path.exists() else {}
                yield keys
                write_atomically(
                    self.path, lambda beside: _write_private(beside, msgspec.json.encode([*keys.values()]))
                )
        except (apsw.Error, OSError) as error:
            raise ServiceError(
                f"The keys cannot be changed: {error}.",
                where=str(self.path),
                next_step="See that the folder can be written to, and that nothing else changes keys; then try again.",
            ) from error

    def _read(self) -> list[Key]:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Key])
        except (OSError, msgspec.MsgspecError) as error:
            raise self._unreadable(str(error)) from error

    def _unreadable(self, why: str) -> ServiceError:
        return ServiceError(
            f"The keys cannot be read: {why}.",
            where=str(self.path),
            next_step="Restore the file from a backup; or move it away and make new ones: endcap keys create --help",
        )


def id_of(token: str) -> str:
    """The id that a token names, "" where it has not the form of one."""
    prefix, _, rest = token.partition("_")
    return rest.partition("_")[0] if prefix == PREFIX else ""


def _scopes(given: Iterable[str]) -> tuple[Scope, ...]:
    wanted = [scope.strip() for scope in given]
    unknown = [scope for scope in wanted if scope not in tuple(Scope)]
    if unknown or not wanted:
        raise CallerError(
            f"There is no scope {unknown[0]!r}." if unknown else "A key needs a scope.",
            where="scopes",
            next_step="Choose from read (ask for answers), write (events, items, users) and admin (all else).",
        )
    return tuple(scope for scope in Scope if scope in wanted)


def _write_private(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def keys_of(workspace: Path) -> Keys:
    """Of a workspace whose store may be away: a key can be taken back all the same. NotFoundError where there is no
    workspace."""
    if not (workspace / "endcap.toml").is_file():
        raise NotFoundError(
            "There is no workspace here.", where=str(workspace), next_step=f"Make one: endcap init {workspace}"
        )
    return Keys(workspace, AuditLog(workspace, system_clock), system_clock)
