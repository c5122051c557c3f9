"""Both stores keep the contract: the one in the workspace, and the one on a real Postgres."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.servers import PostgresServer

from endcap.data.postgres_store import PostgresStore
from endcap.data.sqlite_store import SqliteStore
from endcap.testing import StoreConformance


class TestSqlite(StoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> SqliteStore:
        return SqliteStore.open(self.folder, create=True)

    def reopen(self, *, read_only: bool = False) -> SqliteStore:
        return SqliteStore.open_reader(self.folder) if read_only else SqliteStore.open(self.folder)


class TestPostgres(StoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, postgres: PostgresServer, schema: str) -> None:
        self.url, self.schema = postgres.url, schema

    def make(self) -> PostgresStore:
        return PostgresStore.open(self.url, self.schema, create=True)

    def reopen(self, *, read_only: bool = False) -> PostgresStore:
        return PostgresStore.open(self.url, self.schema, read_only=read_only)
