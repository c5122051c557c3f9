"""Which store a workspace has: its own on SQLite, or a Postgres that several machines share, by its URL."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from endcap.core.errors import CallerError
from endcap.core.section import Section
from endcap.data.sqlite_store import SqliteStore
from endcap.data.store import Store

VARIABLE = "ENDCAP_STORE_URL"
EMBEDDED = ("", "sqlite")
SCHEMES = ("postgresql://", "postgres://")


class StoreConfig(Section):
    # Neither printed nor written into manifests: it may hold a password.
    url: str = Field(
        "",
        repr=False,
        exclude=True,
        description="Where events, catalogue and users are kept: `postgresql://user@host/database`, or empty for "
        "SQLite in the workspace. The environment variable `ENDCAP_STORE_URL` wins, so that no password need be in "
        "a file.",
    )
    namespace: str = Field(
        "endcap",
        pattern=r"^[a-z_][a-z0-9_]{0,47}$",
        description="Schema of the Postgres database that holds this shop: one for each shop that shares the database.",
    )
    connections: int = Field(8, ge=1, le=256, description="Most connections to Postgres a process opens for reading.")


def is_embedded(config: StoreConfig) -> bool:
    """Whether the store is the workspace's own."""
    return store_url(config) in EMBEDDED


def store_url(config: StoreConfig) -> str:
    return os.environ.get(VARIABLE) or config.url


def open_store(
    folder: Path, config: StoreConfig | None = None, *, create: bool = False, read_only: bool = False
) -> Store:
    """Open the store of the workspace whose SQLite store is or would be in `folder`.

    create: a missing one is made; without, it is a NotFoundError. Raises as `SqliteStore.open` and
    `PostgresStore.open` do.
    """
    chosen = config or StoreConfig()
    url = store_url(chosen)
    if url.startswith(SCHEMES):
        from endcap.data.postgres_store import PostgresStore

        return PostgresStore.open(
            url, chosen.namespace, create=create, read_only=read_only, connections=chosen.connections
        )
    if url not in EMBEDDED:
        raise CallerError(
            "The URL of the store does not begin with postgresql://.",
            where="[store] url",
            next_step="Leave it empty for SQLite in the workspace.",
        )
    return SqliteStore.open_reader(folder) if read_only else SqliteStore.open(folder, create=create)
