"""Private Postgres and Redis servers for tests: started on a free port, stopped, killed and started again at will.

Fixtures `postgres` and `redis_server` (tests/conftest.py) start one a session; whoever stops or kills one makes its
own, with `with PostgresServer() as server:`. `missing_postgres()` and `missing_redis()` say why there is none.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

START_S = 60.0
POSTGRES_USER = "postgres"  # initdb and postgres refuse to run as root


def missing_postgres() -> str:
    """Why Postgres cannot be started here; empty where it can."""
    return "" if _postgres_folder() else "the programs initdb and postgres are not installed"


def missing_redis() -> str:
    return "" if shutil.which("redis-server") else "the program redis-server is not installed"


class Server:
    """One process that listens on `port`. Subclasses say how it is begun and when it is ready."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="endcap-server-"))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, with the data it had, and wait until it answers."""
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            with (self.folder / "server.log").open("ab") as log:
                self.process = self.begin(log.fileno())
            while time.monotonic() < deadline_s and self.process.poll() is None:
                if self.is_ready():
                    return
                time.sleep(0.05)
            # Just after a kill a server may still find traces of the one before.
            time.sleep(0.1)
        raise RuntimeError((self.folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        """Ask it to end and wait until it has."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut would end its processes."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Let its processes stand still, connections open: a server that hangs."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def prepare(self) -> None:
        """Make what it needs before its first start."""

    def begin(self, log: int) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        for pid in self._pids() if number == signal.SIGKILL else [self.process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        self.process.wait(START_S)
        self.process = None

    def _pids(self) -> list[int]:
        """The server's process and its children."""
        if self.process is None:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *(map(int, children.read_text().split()) if children.is_file() else ())]


class PostgresServer(Server):
    """url: of the database `postgres`, for a user who may do everything and needs no password."""

    def __init__(self) -> None:
        super().__init__()
        self._who: dict[str, object] = {}
        if os.geteuid() == 0:
            self._who = {"user": POSTGRES_USER, "group": POSTGRES_USER, "extra_groups": []}
            shutil.chown(self.folder, POSTGRES_USER, POSTGRES_USER)
        self._programs = _postgres_folder()
        self._data = self.folder / "data"

    @property
    def url(self) -> str:
        return f"postgresql://endcap@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        command = [self._programs / "initdb", "--no-sync", "--auth=trust", "--username=endcap", "-D", self._data]
        with (self.folder / "server.log").open("ab") as log:
            subprocess.run([*command, "--encoding=UTF8", "--locale=C"], stdout=log, stderr=log, check=True, **self._who)

    def begin(self, log: int) -> subprocess.Popen[bytes]:
        settings = ["-c", "listen_addresses=127.0.0.1", "-k", self.folder, "-p", str(self.port)]
        command = [self._programs / "postgres", "-D", self._data, *settings]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._who)

    def is_ready(self) -> bool:
        check = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(check, check=False).returncode == 0


class RedisServer(Server):
    """settings: further arguments of redis-server, such as "--appendonly", "yes"."""

    def __init__(self, *settings: str) -> None:
        super().__init__()
        self._settings = settings

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def begin(self, log: int) -> subprocess.Popen[bytes]:
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.folder, "--save", ""]
        return subprocess.Popen([*command, *self._settings], stdout=log, stderr=log)

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _postgres_folder() -> Path | None:
    """The folder of the newest Postgres' programs; Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    places = [path.parent for path in found]
    if on_path := shutil.which("initdb"):
        places.append(Path(on_path).resolve().parent)
    return next((place for place in reversed(places) if (place / "postgres").is_file()), None)
