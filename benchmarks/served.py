"""A server under measurement: started on a core of its own, watched from outside, and killed where a test wants it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.load import cores
from endcap.web.server import free_port

ROOT = Path(__file__).parents[1]
READY_WITHIN_S = 300.0
LOCAL, SHOWN = "127.0.0.1", 3000
STAGE = re.compile(r'^(\w*stage\w*)_(sum|count)\{[^}]*stage="([^"]+)"[^}]*\} ([\d.e+-]+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """MB of all its processes. rss counts shared pages once for each process; pss shares them out, and is the sum of
    file and anonymous."""

    rss: float
    pss: float
    file: float
    anonymous: float


@dataclass(slots=True)
class Served:
    """A running server. log: what it complains of. ready_s: from the start of the process to the first 200 of its
    readiness route."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]
    ready_s: float = 0.0

    def cpu_s(self) -> float:
        """Processor seconds of all its processes so far."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def memory(self) -> Memory:
        parts = [_memory(pid) for pid in self.pids()]
        return Memory(*(sum(getattr(part, name) for part in parts) for name in Memory.__slots__))

    def rss_mb(self) -> float:
        """Resident memory of all its processes, cheaply: to be asked often, beside a load."""
        page = os.sysconf("SC_PAGE_SIZE") / 2**20
        return sum(page * int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())

    def pids(self) -> list[int]:
        """Its process and the children of it."""
        found, open_ = [], [self.process.pid]
        while open_:
            pid = open_.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                open_ += [int(child) for child in children.read_text().split()]
        return found

    def kill(self) -> None:
        """kill -9 of all its processes."""
        for pid in reversed(self.pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.close()

    def last_words(self) -> str:
        self.log.seek(0)
        return self.log.read()[-SHOWN:].decode(errors="replace")

    def ask(self, path: str, body: str | None = None) -> tuple[int, bytes]:
        """One request over a connection of its own: status and body."""
        connection = http.client.HTTPConnection(LOCAL, self.port, timeout=60)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def takes_up(self, release: str) -> None:
        """Wait until this release answers: a server loads what is published beside its answers."""
        until = time.monotonic() + READY_WITHIN_S
        while json.loads(self.ask("/health/ready")[1])["release"] != release:
            if time.monotonic() > until:
                raise TimeoutError(f"{release} does not answer. {self.last_words()}")
            time.sleep(0.02)

    def stages(self) -> dict[str, tuple[float, float]]:
        """Stage -> seconds and times so far, of the histograms by stage at /metrics; none without that page."""
        status, page = self.ask("/metrics")
        found: dict[str, dict[str, float]] = {}
        if status == 200:
            for _, part, stage, value in STAGE.findall(page.decode()):
                found.setdefault(stage, {})[part] = found.get(stage, {}).get(part, 0.0) + float(value)
        return {stage: (parts.get("sum", 0.0), parts.get("count", 0.0)) for stage, parts in found.items()}


def start(command: Sequence[str], port: int, ready: str, env: Mapping[str, str] | None = None) -> Served:
    """Start a server that will listen on the port, and wait until its readiness route says 200. env: all of it; None
    means this process's."""
    core = cores()[0]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    began = time.monotonic()
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
    process = subprocess.Popen(
        list(command),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=log,
        env={**(os.environ if env is None else env), **one_thread},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 - no threads run yet that could hold a lock
    )
    served = Served(process, port, log)
    while process.poll() is None and time.monotonic() - began < READY_WITHIN_S:
        with suppress(OSError):
            if served.ask(ready)[0] == 200:
                served.ready_s = time.monotonic() - began
                return served
        time.sleep(0.01)
    words = served.last_words()
    served.kill()
    raise RuntimeError(f"It was not ready after {time.monotonic() - began:.0f} s: {' '.join(command)}\n{words}")


def start_endcap(workspace: Path, port: int = 0, *further: str, **env: str) -> Served:
    """`endcap serve` of a workspace, ready. further: options."""
    port = port or free_port(LOCAL, 0)
    command = [sys.executable, "-m", "endcap", "serve", "--shop", str(workspace), "--port", str(port), *further]
    return start(command, port, "/health/ready", {**os.environ, **env})


@contextmanager
def endcap_served(workspace: Path, *further: str, **env: str) -> Iterator[Served]:
    served = start_endcap(workspace, 0, *further, **env)
    try:
        yield served
    finally:
        served.stop()


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> Memory:
    found = {"Rss": 0.0, "Pss": 0.0, "Pss_File": 0.0, "Pss_Anon": 0.0, "Pss_Shmem": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) / 1024
    return Memory(found["Rss"], found["Pss"], found["Pss_File"] + found["Pss_Shmem"], found["Pss_Anon"])
