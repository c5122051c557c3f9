"""Backups hold all there is, of one moment, and come back whole, into either store; damage is found."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import msgspec
import polars as pl
import pytest
from tests.earlier import make_version_2
from tests.servers import PostgresServer

from endcap.app import keeping
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError, DataError, NotFoundError, ServiceError
from endcap.core.types import Event, EventType
from endcap.data import database
from endcap.data.open_store import VARIABLE
from endcap.data.sqlite_store import SEGMENT_MIN_ROWS
from endcap.testing.conformance_store import a_table


def answers(shop: Shop, users: list[str]) -> list[list[tuple[str, float]]]:
    return [[(item.item_id, item.score) for item in shop.recommend(user, n=8).items] for user in users]


def some_users(shop: Shop) -> list[str]:
    return (
        shop.store.events().select(pl.col("user_id").unique(maintain_order=True)).head(5).collect()["user_id"].to_list()
    )


def everything(shop: Shop) -> tuple:
    store = shop.store
    return (
        store.events().collect().rows(),
        store.items().rows(),
        store.users().rows(),
        store.quarantined().collect().rows(),
        [manifest.release_id for manifest in shop.releases.list()],
        shop.releases.current(),
        answers(shop, some_users(shop)),
    )


def view(user: str, item: str, event_id: str, ts_ms: int) -> Event:
    return Event(event_type=EventType.VIEW, user_id=user, item_id=item, event_id=event_id, ts_ms=ts_ms)


class TestBackup:
    def test_a_shop_comes_back_whole_and_goes_on(self, shop: Shop, tmp_path: Path, planted) -> None:
        shop.store.quarantine(
            pl.DataFrame({"table": "events", "rule": "r", "reason": "s", "source": "f", "line": 1, "raw": "{}"})
        )
        before = everything(shop)
        made = keeping.back_up(shop, tmp_path / "backup")
        assert made.last_seq == len(before[0])
        shop.record(view("late", "x", "after-the-backup", planted.now_ms))
        assert keeping.restore(tmp_path / "backup", tmp_path / "new") == made
        assert keeping.verify(tmp_path / "new") == []
        with Shop.open(tmp_path / "new", clock=lambda: planted.now_ms) as restored:
            assert everything(restored) == before
            assert restored.record(view("late", "x", "after-the-backup", planted.now_ms)).last_seq == made.last_seq + 1

    def test_it_is_of_one_moment_while_others_write(self, shop: Shop, tmp_path: Path, planted) -> None:
        done = threading.Event()

        def write() -> None:
            number = 0
            while not done.is_set():
                number += 1
                shop.record(*(view("u", "x", f"{number}-{part}", planted.now_ms) for part in range(5)))

        before, writer = shop.store.last_seq(), threading.Thread(target=write)
        writer.start()
        while shop.store.last_seq() < before + 50:
            pass
        made = keeping.back_up(shop, tmp_path / "backup")
        done.set()
        writer.join(30)
        assert keeping.verify(tmp_path / "backup") == []
        with Shop.open(tmp_path / "backup", read_only=True) as copy:
            events = copy.store.events().collect()
        assert made.last_seq == events.height >= before + 50
        assert (events.height - before) % 5 == 0, "a batch is in the backup whole or not at all"
        assert events.rows() == shop.store.events().collect().head(events.height).rows()

    def test_nothing_is_overwritten_and_nothing_is_left_half_done(
        self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keeping.back_up(shop, tmp_path / "backup")
        with pytest.raises(CallerError, match="something here already"):
            keeping.back_up(shop, tmp_path / "backup")
        with pytest.raises(CallerError, match="never restored over"):
            keeping.restore(tmp_path / "backup", shop.folder)
        monkeypatch.setattr(keeping, "replace_atomically", _no_space)
        with pytest.raises(CallerError, match="No space left"):
            keeping.back_up(shop, tmp_path / "second")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "shop"]

    @pytest.mark.parametrize("pattern", ["store/store.sqlite", "store/segments/*.parquet", "releases/*/ranker/*"])
    def test_a_damaged_backup_is_refused_before_anything_is_written(
        self, shop: Shop, tmp_path: Path, planted, pattern: str
    ) -> None:
        row = {"user_id": "u", "item_id": "a", "event_type": "view", "ts_ms": planted.now_ms}
        shop.store.append_table(pl.DataFrame([row] * 2_500))  # enough for a segment
        keeping.back_up(shop, tmp_path / "backup")
        path = next(path for path in sorted((tmp_path / "backup").glob(pattern)) if path.is_file())
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match=path.name):
            keeping.restore(tmp_path / "backup", tmp_path / "new")
        assert not (tmp_path / "new").exists()
        assert any(
            path.name in problem
            for problem in keeping.damages(tmp_path / "backup", keeping.read_backup(tmp_path / "backup"))
        )

    def test_a_folder_that_is_no_backup_is_told(self, shop: Shop, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no backup"):
            keeping.restore(shop.folder, tmp_path / "new")
        shutil.copytree(shop.folder, tmp_path / "bad")
        (tmp_path / "bad" / keeping.MANIFEST).write_text('{"format": 1, "files": ')
        with pytest.raises(DataError, match="cannot be read"):
            keeping.restore(tmp_path / "bad", tmp_path / "new")


class TestEarlierBackup:
    """A backup whose store is of schema version 2 and holds a segment."""

    @pytest.fixture
    def earlier(self, shop: Shop, tmp_path: Path) -> Path:
        shop.store.append_table(a_table([f"bulk{number}" for number in range(SEGMENT_MIN_ROWS)]))
        backup = tmp_path / "earlier"
        made = keeping.back_up(shop, backup)
        make_version_2(backup / "store")
        assert list((backup / "store" / "segments").glob("*.ids.npy"))
        (backup / keeping.MANIFEST).unlink()
        made = keeping._described(backup, shop.store.counts(), made.last_seq, made.created_ms, shop.releases.list())
        (backup / keeping.MANIFEST).write_bytes(msgspec.json.encode(made))
        return backup

    def test_looking_at_it_changes_nothing_in_it(self, earlier: Path) -> None:
        before = {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()}
        assert keeping.verify(earlier) == []
        with pytest.raises(CallerError, match="endcap restore"):
            Shop.open(earlier, read_only=True)
        assert {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()} == before

    def test_it_comes_back_into_either_store(
        self, earlier: Path, shop: Shop, tmp_path: Path, planted, postgres: PostgresServer, schema: str, monkeypatch
    ) -> None:
        before = everything(shop)
        for name, store in (("grown", f"{postgres.url}?schema={schema}"), ("same", "sqlite")):
            monkeypatch.setenv(VARIABLE, store)
            keeping.restore(earlier, tmp_path / name)
            assert keeping.verify(tmp_path / name) == []
            with Shop.open(tmp_path / name, clock=lambda: planted.now_ms) as restored:
                assert everything(restored) == before
                assert restored.store.append([view("u", "x", "bulk7", planted.now_ms)]).accepted == []


def test_a_store_that_is_in_use_is_not_called_damaged(folder: Path) -> None:
    make_version_2(folder / "store")
    lock = database.lock_for_writing(folder / "store")
    with pytest.raises(ServiceError, match="writing to this workspace"):
        keeping.verify(folder)
    lock.close()
    assert keeping.verify(folder) == []


def test_a_shop_grows_onto_postgres_and_comes_back(
    shop: Shop,
    postgres: PostgresServer,
    schema: str,
    tmp_path: Path,
    planted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = shop.recommend(n=1).items[0].item_id  # after the release was made
    shop.store.delete_items([hidden])
    before = everything(shop)
    assert hidden not in {item.item_id for item in shop.recommend(n=24).items}
    keeping.back_up(shop, tmp_path / "first")
    monkeypatch.setenv(VARIABLE, f"{postgres.url}?schema={schema}")
    keeping.restore(tmp_path / "first", tmp_path / "grown")
    assert not (tmp_path / "grown" / "store").exists()
    assert keeping.verify(tmp_path / "grown") == []
    with Shop.open(tmp_path / "grown", clock=lambda: planted.now_ms) as grown:
        assert everything(grown) == before
        assert hidden not in {item.item_id for item in grown.recommend(n=24).items}
        grown.record(view(some_users(grown)[0], before[1][0][0], "on-postgres", planted.now_ms))
        after = everything(grown)
        keeping.back_up(grown, tmp_path / "second")
    with pytest.raises(CallerError, match="a copy goes into an empty one"):
        keeping.restore(tmp_path / "first", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    monkeypatch.setenv(VARIABLE, "sqlite")
    keeping.restore(tmp_path / "second", tmp_path / "back")
    with Shop.open(tmp_path / "back", clock=lambda: planted.now_ms) as back:
        assert everything(back) == after


class TestVerify:
    def test_a_damaged_release_and_a_lost_one_are_told(self, folder: Path) -> None:
        assert keeping.verify(folder) == []
        current, older = _releases(folder)
        model = next(
            path
            for path in (folder / "releases" / older).rglob("*")
            if path.name == "items.parquet" or path.suffix == ".npy"
        )
        model.write_bytes(model.read_bytes()[:-1])
        assert [str(model) in problem for problem in keeping.verify(folder)] == [True]
        shutil.rmtree(folder / "releases" / current)
        assert any(f"the published release {current} is not there" in problem for problem in keeping.verify(folder))

    def test_a_half_written_release_and_segment_are_no_damage(self, folder: Path, planted) -> None:
        (folder / "releases" / ".staging-1-abc").mkdir()
        (folder / "releases" / ".staging-1-abc" / "model.npy").write_bytes(b"half")
        (folder / "store" / "segments").mkdir(exist_ok=True)
        (folder / "store" / "segments" / "000099.parquet").write_bytes(b"half")
        assert keeping.verify(folder) == []
        with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
            assert shop.recommend("a stranger", n=3).items
            assert not (folder / "store" / "segments" / "000099.parquet").exists()


def test_everything_but_log_catalogue_and_config_is_made_anew_by_training(shop: Shop, planted, tmp_path: Path) -> None:
    """The store and the config are all there is to keep; releases, caches and states come from them."""
    shop.train(evaluate=False)
    before = answers(shop, some_users(shop))
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    shutil.copy(shop.folder / "endcap.toml", fresh)
    shop.store.copy_to(fresh / "store")
    with Shop.open(fresh, clock=lambda: planted.now_ms) as again:
        assert again.releases.list() == []
        again.train(evaluate=False)
        assert answers(again, some_users(again)) == before


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def _releases(folder: Path) -> tuple[str, str]:
    """The published release and the other one."""
    with Shop.open(folder, read_only=True) as shop:
        current = shop.releases.current()
        return current, next(found.release_id for found in shop.releases.list() if found.release_id != current)
