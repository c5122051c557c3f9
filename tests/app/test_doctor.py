"""Each check is shown a thing that is really broken, and one that is not."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import polars as pl
import pytest

from endcap import __version__
from endcap.app import doctor_machine as machine
from endcap.app import doctor_servers as servers
from endcap.app.config import Config, load_config
from endcap.app.doctor import examine
from endcap.app.runtime import Shop
from endcap.core import tables
from endcap.core.types import Event, EventType, Item

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def ask(folder, planted):
    """check -> its findings, by the moment at which the shop was planted, or one after it."""

    def examined(*, later_ms=0, **rest):
        found = {}
        for finding in examine(folder, clock=lambda: planted.now_ms + 60_000 + later_ms, **rest):
            found.setdefault(finding.check, []).append(finding)
        return found

    return examined


def level(found, check):
    (finding,) = found[check]
    assert (finding.level == "ok") == (not finding.next_step)
    return finding.level


def test_a_sound_workspace_has_no_problem(ask, folder):
    found = ask(deep=True)
    wrong = [finding for findings in found.values() for finding in findings if finding.level == "problem"]
    assert wrong == []
    for check in ("config", "store", "releases", "writer", "clock", "release", "catalogue", "events", "quarantine"):
        assert level(found, check) == "ok"


def test_no_workspace(tmp_path):
    found = {finding.check: finding for finding in examine(tmp_path / "nothing")}
    assert found["config"].level == "problem"
    assert "endcap init" in found["config"].next_step
    assert not (tmp_path / "nothing").exists()


def test_settings_that_are_wrong(ask, folder):
    (folder / "endcap.toml").write_text("[train]\nmoment = 2\n")
    found = ask()
    assert level(found, "config") == "problem"
    assert "train.moment" in found["config"][0].said
    assert "store" not in found


@pytest.mark.parametrize("name", ["store.sqlite", "releases"])
def test_damage_is_found(ask, folder, name):
    """By the quick look in the database, by the deep one in whatever has a checksum."""
    if name == "releases":
        path = next(path for path in (folder / "releases").rglob("*.npy"))
    else:
        with Shop.open(folder) as shop:
            shop.store.put_items([Item(item_id=f"i{n}", title="x" * 300) for n in range(300)])
        path = folder / "store" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = os.urandom(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    levels = {finding.level for findings in ask(deep=name == "releases").values() for finding in findings}
    assert "problem" in levels


def test_a_segment_that_was_changed_is_found_when_every_byte_is_read(ask, folder):
    path = next((folder / "store" / "segments").glob("*.parquet"), None)
    if path is None:
        with Shop.open(folder) as shop:
            many = {"event_type": "view", "user_id": "u", "ts_ms": 1_600_000_000_000, "item_id": "i"}
            shop.store.append_table(tables.conform(pl.DataFrame([many] * 20_000), tables.EVENTS))
        path = next((folder / "store" / "segments").glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    found = ask(deep=True)
    assert level(found, "store") == "problem"
    assert path.name in found["store"][0].said


HOLD = (
    "import sys; from endcap.app.runtime import Shop\nwith Shop.open(sys.argv[1]): print('held', flush=True); input()"
)


def test_who_writes_is_named(ask, folder):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout.readline() == "held\n"
        (finding,) = ask()["writer"]
        other.communicate("\n", timeout=30)
    assert f"process {other.pid}" in finding.said
    assert "Nothing is writing" in ask()["writer"][0].said


def test_clocks_and_events_of_the_future(ask, folder, planted):
    assert level(ask(later_ms=-400 * 86_400_000), "clock") == "problem"
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        ahead = planted.now_ms + 3_600_000
        shop.record(Event(event_type=EventType.VIEW, user_id="u", item_id="i", ts_ms=ahead))
    found = ask()
    assert level(found, "clock") == "warning"
    assert found["clock"][0].said.startswith("1 events lie in the future")


def test_releases_that_are_missing_broken_or_old(ask, folder):
    assert level(ask(later_ms=40 * 86_400_000), "release") == "warning"
    manifest = folder / "releases" / msgspec.json.decode((folder / "releases" / "current").read_bytes())["release"]
    (manifest / "items.parquet").write_bytes(b"no table")
    found = ask()
    assert level(found, "release") == "problem"
    assert "rollback" in found["release"][0].next_step
    shutil.rmtree(folder / "releases")
    assert "endcap train" in ask()["release"][0].next_step


def test_a_catalogue_and_a_log_that_the_release_does_not_know(ask, folder, planted):
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        shop.store.put_items([Item(item_id=f"new {number}") for number in range(10)])
        last = shop.store.last_seq()
        shop.record(
            *(
                Event(event_type=EventType.VIEW, user_id="u", item_id="i", ts_ms=planted.now_ms)
                for _ in range(last // 2)
            )
        )
    found = ask()
    assert level(found, "catalogue") == "warning"
    assert found["catalogue"][0].said.startswith("10 of the catalogue's 34")
    assert level(found, "events") == "warning"
    assert "endcap refit" in found["events"][0].next_step


def test_much_that_was_refused(ask, folder):
    refused = [{"table": "events", "rule": "no_user", "reason": "", "raw": "{}", "source": "x"}] * 5000
    with Shop.open(folder) as shop:
        shop.store.quarantine(tables.conform(pl.DataFrame(refused), tables.QUARANTINE))
    found = ask()
    assert level(found, "quarantine") == "warning"
    assert "no_user" in found["quarantine"][0].said


class TestMachine:
    def test_python(self):
        assert [one.level for one in machine.python((3, 11, 9))] == ["ok"]
        assert [one.level for one in machine.python((3, 15, 0))] == ["warning"]

    def test_packages(self):
        assert [one.level for one in machine.packages()] == ["ok"]
        floors = {name: floor or "9" for name, floor in machine._floors().items()}
        assert "polars" in floors
        tested = machine._tested()
        (old,) = machine.packages({**tested, "polars": "0.20.1"})
        assert (old.level, "polars is 0.20.1" in old.said) == ("problem", True)
        (gone,) = machine.packages({name: version for name, version in tested.items() if name != "apsw"})
        assert (gone.level, "apsw is not installed" in gone.said) == ("problem", True)
        (newer,) = machine.packages({**tested, "polars": "99.0"})
        assert (newer.level, "polars 99.0" in newer.said) == ("warning", True)

    def test_extras(self, tmp_path, monkeypatch):
        (tmp_path / "endcap.toml").write_text('[train]\nsources = ["popular"]\n')
        assert [one.level for one in machine.extras(load_config(tmp_path / "endcap.toml"), {})] == ["ok"]
        missing = {one.next_step: one.level for one in machine.extras(Config(), {})}
        assert missing == {"pip install 'endcap[train]'": "warning", "pip install 'endcap[text]'": "warning"}
        monkeypatch.setenv("ENDCAP_STORE_URL", "postgresql://u:secret@h/d")
        monkeypatch.setenv("ENDCAP_STATE_URL", "redis://:secret@h")
        (tmp_path / "endcap.toml").write_text('[train]\nsources = ["popular"]\n[speech]\nlanguage = "en"\n')
        found = list(machine.extras(load_config(tmp_path / "endcap.toml"), {}))
        assert [one.level for one in found] == ["problem"] * 3
        assert not any("secret" in one.said for one in found)

    def test_a_workspace_that_others_write_to(self, folder):
        assert [one.level for one in machine.permissions(folder)] == ["ok"]
        (folder / "store").chmod(0o777)
        (found,) = machine.permissions(folder)
        assert (found.level, str(folder / "store") in found.said) == ("warning", True)

    def test_a_workspace_that_cannot_be_written_to(self, folder):
        (folder / "store").chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)  # rights do not bind root
        try:
            (found,) = machine.permissions(folder)
        finally:
            if is_root:
                os.seteuid(0)
        assert found.level == "problem"

    def test_a_full_disk(self, tmp_path):
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "tmpfs", str(tmp_path)],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            pytest.skip("a small file system cannot be mounted here")
        try:
            assert [(one.check, one.level) for one in machine.disk(tmp_path)] == [
                ("disk", "problem"),
                ("inodes", "problem"),
            ]
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)

    def test_a_disk_with_room(self, tmp_path):
        assert all(one.level in {"ok", "warning"} for one in machine.disk(tmp_path))

    def test_few_open_files(self):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        levels = []
        try:
            for soft in (200, 512, 1024):
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
                levels += [one.level for one in machine.open_files()]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert levels == ["problem", "warning", "ok"]

    def test_threads(self):
        assert [one.level for one in machine.threads({"OMP_NUM_THREADS": "1"})] == ["ok"]
        (found,) = machine.threads({"OMP_NUM_THREADS": "8"})
        assert (found.level, "unset OMP_NUM_THREADS" in found.next_step) == ("warning", True)


class Answers(BaseHTTPRequestHandler):
    """A server of Endcap, as far as its health goes."""

    told: dict[str, tuple[int, bytes]]

    def do_GET(self):
        status, body = self.told.get(self.path, (404, b"{}"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def answering():
    """A URL at which the given answers are had."""
    opened = []

    def serve(version=__version__, ready=None, status=200, raw=None):
        body = raw or msgspec.json.encode(ready or {"ready": True, "release": "one", "problem": ""})
        told = {"/health/live": (200, msgspec.json.encode({"version": version})), "/health/ready": (status, body)}
        server = HTTPServer(("127.0.0.1", 0), type("Told", (Answers,), {"told": told}))
        opened.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in opened:
        server.shutdown()
        server.server_close()


class TestServers:
    def test_a_server_of_the_same_release_and_version(self, answering):
        assert [one.level for one in servers.server(answering(), "one")] == ["ok"]

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            ({"version": "0.0.1"}, "runs Endcap 0.0.1"),
            ({"ready": {"ready": True, "release": "two"}}, "release two, and one is published"),
            ({"ready": {"problem": "No release is published."}, "status": 503}, "No release is published"),
            ({"raw": b"<html>"}, "no server of Endcap"),
        ],
    )
    def test_another_server(self, answering, told, said):
        (found,) = servers.server(answering(**told), "one")
        assert found.level == "problem"
        assert said in found.said

    def test_no_server(self, ask):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        assert level(ask(url=f"http://127.0.0.1:{port}"), "server") == "problem"
        assert level(ask(url="nonsense"), "server") == "problem"

    def test_databases_that_are_away(self, ask, monkeypatch):
        monkeypatch.setenv("ENDCAP_STORE_URL", "postgresql://u:secret@127.0.0.1:1/d")
        monkeypatch.setenv("ENDCAP_STATE_URL", "redis://:secret@127.0.0.1:1/0")
        found = ask()
        assert level(found, "postgres") == level(found, "redis") == "problem"
        assert not any("secret" in one.said + one.next_step for findings in found.values() for one in findings)

    def test_redis_that_answers(self, tmp_path):
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("redis-server is not installed")
        path = tmp_path / "redis.sock"
        command = [binary, "--port", "0", "--unixsocket", str(path), "--save", "", "--daemonize", "no"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
            try:
                while "ready to accept" not in process.stdout.readline().lower():
                    pass
                (found,) = servers.redis(f"unix://{path}")
            finally:
                process.terminate()
        assert found.said.startswith("Redis answers in")

    @pytest.mark.parametrize(
        ("host", "keys", "expected"),
        [
            ("127.0.0.1", None, "ok"),
            ("::1", None, "ok"),
            ("0.0.0.0", None, "problem"),
            ("shop.example", [{"id": "a", "revoked_ms": 5}], "problem"),
            ("0.0.0.0", [{"id": "a", "revoked_ms": None}], "ok"),
        ],
    )
    def test_who_may_call(self, tmp_path, host, keys, expected):
        if keys is not None:
            (tmp_path / "keys.json").write_bytes(msgspec.json.encode(keys))
        config = Config.model_validate({"serve": {"host": host}})
        assert [one.level for one in servers.callers(config, tmp_path)] == [expected]
