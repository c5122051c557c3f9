"""Real servers to stand beside ours in a test: Redis and Postgres, on ports of their own, killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from endcap.core.errors import MissingExtraError
from endcap.web.server import free_port

LOCAL = "127.0.0.1"
WITHIN_S = 60.0
POSTGRES_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
POSTGRES_USER = "postgres"


@dataclass(slots=True)
class Beside:
    """A running server. variable, url: what tells Endcap of it."""

    variable: str
    url: str
    command: Sequence[str]
    is_there: Callable[[], bool]
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """kill -9 of it and of its children, which share its process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Killed, and started again with what it had on disk; returns when it answers."""
        self.kill()
        self.process = _started(self.command, self.is_there)


@contextmanager
def redis() -> Iterator[Beside]:
    """A Redis that keeps nothing on disk. MissingExtraError where there is none on this machine."""
    program, port = shutil.which("redis-server"), free_port(LOCAL, 0)
    if program is None:
        raise MissingExtraError("redis-server", "redis")
    command = [program, "--port", str(port), "--bind", LOCAL, "--save", "", "--appendonly", "no"]
    with _beside("ENDCAP_STATE_URL", f"redis://{LOCAL}:{port}/0", command, lambda: _pongs(port)) as found:
        yield found


@contextmanager
def postgres() -> Iterator[Beside]:
    """A Postgres with a new database. MissingExtraError where there is none on this machine."""
    program = shutil.which("postgres") or next(
        (str(path / "postgres") for pattern in POSTGRES_PLACES for path in sorted(Path("/").glob(pattern[1:]))), None
    )
    if program is None:
        raise MissingExtraError("postgresql", "postgres")
    port, tools = free_port(LOCAL, 0), Path(program).parent
    with tempfile.TemporaryDirectory(prefix="endcap-postgres-") as folder:
        user = _user(Path(folder))
        initdb = [*user, str(tools / "initdb"), "-D", f"{folder}/data", "-U", POSTGRES_USER, "--auth=trust"]
        subprocess.run(initdb, check=True, cwd="/", stdout=subprocess.DEVNULL)
        command = [*user, program, "-D", f"{folder}/data", "-p", str(port), "-h", LOCAL, "-k", folder]
        url = f"postgresql://{POSTGRES_USER}@{LOCAL}:{port}/postgres"
        with _beside("ENDCAP_STORE_URL", url, command, lambda: _connects(url)) as found:
            yield found


@contextmanager
def _beside(variable: str, url: str, command: Sequence[str], is_there: Callable[[], bool]) -> Iterator[Beside]:
    """The variable is set for this process and those that it starts until the block is left."""
    found = Beside(variable, url, command, is_there, _started(command, is_there))
    before = os.environ.get(variable)
    os.environ[variable] = url
    try:
        yield found
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before
        found.kill()


def _started(command: Sequence[str], is_there: Callable[[], bool]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(list(command), cwd="/", stdout=quiet, stderr=quiet, start_new_session=True)
    began = time.monotonic()
    while not is_there():
        if process.poll() is not None or time.monotonic() - began > WITHIN_S:
            process.kill()
            raise RuntimeError(f"It did not start: {' '.join(command)}")
        time.sleep(0.02)
    return process


def _user(folder: Path) -> list[str]:
    """What goes before a command of Postgres, which refuses to run as root; the folder is given to who runs it."""
    if os.geteuid() != 0:
        return []
    found = pwd.getpwnam(POSTGRES_USER)
    os.chown(folder, found.pw_uid, found.pw_gid)
    return ["setpriv", f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}", "--clear-groups"]


def _connects(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _pongs(port: int) -> bool:
    try:
        with socket.create_connection((LOCAL, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
