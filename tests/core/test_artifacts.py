"""Releases: whole or absent, checked when opened, published and rolled back by one pointer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import endcap
from endcap.core.artifacts import Manifest, ReleaseStore, replace_atomically, write_atomically
from endcap.core.errors import ArtifactError, NotFoundError

NOW_MS = 1_767_225_600_000  # 2026-01-01 00:00:00 UTC


def manifest() -> Manifest:
    return Manifest(code_version="1.2.3", seed=7, config={"a": 1}, data={"rows": 10}, metrics={"ndcg": 0.5})


def commit(store: ReleaseStore, content: str = "weights", now_ms: int = NOW_MS) -> str:
    with store.stage() as folder:
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_text(content)
        (folder / "ids.txt").write_text("ids")
        return store.commit(folder, manifest(), now_ms=now_ms).release_id


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(tmp_path / "releases")


class TestCommit:
    def test_the_manifest_says_what_the_release_holds(self, store: ReleaseStore) -> None:
        release = commit(store, "hello")
        folder, found = store.open(release)
        assert release.startswith("20260101T000000-")
        assert (found.release_id, found.created_ms, found.seed, found.metrics) == (release, NOW_MS, 7, {"ndcg": 0.5})
        assert sorted(found.files) == ["ids.txt", "model/weights.bin"]
        assert found.files["model/weights.bin"].bytes == 5
        # sha256 of "hello"
        sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        assert found.files["model/weights.bin"].sha256 == sha256
        assert (folder / "model" / "weights.bin").read_text() == "hello"

    def test_two_equal_releases_in_one_second_are_two(self, store: ReleaseStore) -> None:
        first, second = commit(store), commit(store)
        assert second == f"{first}-2"
        assert [found.release_id for found in store.list()] == [first, second]

    def test_a_commit_is_not_a_publication(self, store: ReleaseStore) -> None:
        commit(store)
        assert store.current() is None

    def test_the_list_is_oldest_first(self, store: ReleaseStore) -> None:
        assert store.list() == []
        late, early = commit(store, "a", NOW_MS + 5_000), commit(store, "b", NOW_MS)
        assert [found.release_id for found in store.list()] == [early, late]


class TestStaging:
    def test_what_fails_leaves_nothing(self, store: ReleaseStore) -> None:
        def fail() -> None:
            with store.stage() as folder:
                (folder / "part").write_text("x")
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert list(store.root.iterdir()) == []
        assert store.list() == []

    def test_only_folders_of_writers_that_are_gone_are_swept(self, store: ReleaseStore) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        store.root.mkdir(parents=True)
        for name in (f".staging-{ended.pid}-aaaaaa", ".staging-nonsense", f".staging-{os.getppid()}-bbbbbb"):
            (store.root / name).mkdir()
            (store.root / name / "manifest.json").write_text("{}")
        with store.stage() as folder:
            assert sorted(path.name for path in store.root.iterdir()) == sorted(
                [f".staging-{os.getppid()}-bbbbbb", folder.name]
            )
        assert store.list() == []


class TestPublish:
    def test_publish_and_roll_back(self, store: ReleaseStore) -> None:
        first, second, third = (commit(store, text) for text in "abc")
        for release in (first, second, second, third):
            store.publish(release)
        assert store.current() == third
        assert store.rollback() == second
        assert store.rollback() == first
        assert store.current() == first
        with pytest.raises(NotFoundError, match="no earlier release"):
            store.rollback()
        assert store.current() == first

    def test_there_is_nothing_to_roll_back_at_first(self, store: ReleaseStore) -> None:
        with pytest.raises(NotFoundError):
            store.rollback()

    @pytest.mark.parametrize("name", ["absent", "../elsewhere", ".staging-1-a", "", "current"])
    def test_only_releases_can_be_published_or_opened(self, store: ReleaseStore, name: str) -> None:
        commit(store)
        for act in (store.publish, store.open, store.manifest):
            with pytest.raises(NotFoundError, match="no release"):
                act(name)
        assert store.current() is None

    def test_a_damaged_pointer_is_told(self, store: ReleaseStore) -> None:
        store.publish(commit(store))
        (store.root / "current").write_text("{")
        with pytest.raises(ArtifactError, match="pointer cannot be read"):
            store.current()


class TestOpen:
    def test_a_changed_byte_is_found(self, store: ReleaseStore) -> None:
        release = commit(store)
        path = store.root / release / "model" / "weights.bin"
        path.write_text("Weights")  # the same length
        with pytest.raises(ArtifactError, match=r"weights\.bin.*checksum differs"):
            store.open(release)

    def test_a_longer_or_missing_file_is_found(self, store: ReleaseStore) -> None:
        release = commit(store)
        path = store.root / release / "ids.txt"
        path.write_text("ids and more")
        with pytest.raises(ArtifactError, match=r"ids\.txt"):
            store.open(release)
        path.unlink()
        with pytest.raises(ArtifactError, match=r"ids\.txt"):
            store.open(release)

    def test_a_damaged_manifest_is_told(self, store: ReleaseStore) -> None:
        release = commit(store)
        (store.root / release / "manifest.json").write_text('{"seed": "none"}')
        with pytest.raises(ArtifactError, match="manifest cannot be read"):
            store.open(release)

    def test_another_format_is_refused(self, store: ReleaseStore) -> None:
        release = commit(store)
        path = store.root / release / "manifest.json"
        content = msgspec.json.decode(path.read_bytes())
        path.write_bytes(msgspec.json.encode({**content, "format": 99}))
        with pytest.raises(ArtifactError, match="format 99"):
            store.open(release)


def test_replacing_a_file_leaves_only_that_file(tmp_path: Path) -> None:
    replace_atomically(tmp_path / "file", b"old")
    replace_atomically(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"new")]


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    replace_atomically(tmp_path / "file", b"old")

    def fill(beside: Path) -> None:
        beside.write_bytes(b"half")
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"the rest")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", fill)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


# Commits and publishes for ever; each line on stdout is a release that was published, written after it was.
PUBLISHER = """
import os, sys
from pathlib import Path
from endcap.core.artifacts import Manifest, ReleaseStore
store = ReleaseStore(Path(sys.argv[1]))
os.write(1, b"ready\\n")
for number in range(10**9):
    with store.stage() as folder:
        for part in range(4):
            (folder / f"part-{part}").write_bytes(os.urandom(20_000))
        whole = store.commit(
            folder, Manifest(code_version="1", seed=0, config={}, data={}, metrics={}), now_ms=1_767_225_600_000)
    store.publish(whole.release_id)
    os.write(1, whole.release_id.encode() + b"\\n")
"""


def publish_until_killed(root: Path, at_least: int, delay_s: float) -> list[str]:
    """Starts a publisher, kills it `delay_s` after it told of `at_least` releases; returns all it told of."""
    environment = {**os.environ, "PYTHONPATH": str(Path(endcap.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(root)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        told = [process.stdout.readline() for _ in range(at_least)]
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().splitlines(keepends=True)
    assert process.returncode == -signal.SIGKILL
    return [line.decode().strip() for line in told if line.endswith(b"\n")]


def test_kill_9_leaves_whole_releases_and_a_readable_pointer(store: ReleaseStore) -> None:
    draw, published = random.Random(11), []
    for _ in range(8):
        published += publish_until_killed(store.root, draw.randrange(3), draw.uniform(0, 0.05))
        releases = [found.release_id for found in store.list()]
        for release in releases:
            store.open(release)  # every file there and of the right checksum
        assert set(published) <= set(releases)
        if published:
            # The last one told of, or one whose publication the kill kept from being told.
            current = store.current()
            assert current in releases
            assert current == published[-1] or current not in published
    assert published
    commit(store)
    assert not [path for path in store.root.iterdir() if path.name.startswith(".staging-")]
