"""A real Redis of its own for a test: started, killed as a crash would, started again, all on one socket of the file
system, so that no port can be taken."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

MISSING = None if shutil.which("redis-server") else "needs redis-server"


class RedisServer:
    """save: keep what is stored over a restart, appended to a file."""

    def __init__(self, folder: Path, *, save: bool = False) -> None:
        self.folder, self._save = folder, save
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *("redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)),
                *("--save", "", "--appendonly", "yes" if self._save else "no", "--daemonize", "no"),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        """As a crash: nothing is said, nothing is written."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.kill()

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(1)
                caller.connect(str(self.socket))
                caller.sendall(b"PING\r\n")
                return caller.recv(7) == b"+PONG\r\n"
        except OSError:
            return False
