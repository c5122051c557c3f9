"""Runs one benchmark and records its figures, with the machine, the command, the code, the time and the peak memory.

Each benchmark is a module of this folder with `run(...) -> dict[str, float]`, flat: name -> number, intervals as
`name_lo` and `name_hi`. It takes those of `data`, `dataset`, `seeds` and `peers` that it names. A figure of its own
called `peak_rss_mb` stands for the process's, where more than the product ran in it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from endcap.core.errors import EndcapError

HERE = Path(__file__).parent


def main() -> None:
    # Threads that spin while they wait take the time of those that work, on a small machine most of all.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__)
    names = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser.add_argument("name", choices=names)
    parser.add_argument("--data", type=Path, help="folder of the data, where the benchmark needs one")
    parser.add_argument("--dataset", help="name of the data, where the benchmark takes any")
    parser.add_argument("--seeds", type=int, default=1, help="how many times to train, where the benchmark repeats")
    parser.add_argument("--peers", default="", help="peer systems to measure beside ours, by comma; `all` for all")
    asked = parser.parse_args()
    if asked.seeds < 1:
        parser.error(f"{asked.seeds} seeds were asked for: ask for one at least.")
    started, commit = time.monotonic(), _commit()
    run = importlib.import_module(f"benchmarks.bench_{asked.name}").run
    from endcap.app.benchmark import peak_rss_mb  # not before the policy is set: it brings numpy

    given = {"data": asked.data, "dataset": asked.dataset, "seeds": asked.seeds, "peers": asked.peers}
    taken = inspect.signature(run).parameters
    try:
        figures = run(**{name: value for name, value in given.items() if name in taken})
    except EndcapError as error:
        sys.exit(str(error))
    name = asked.name + (f"-{asked.dataset}" if asked.dataset else "")
    record = {
        "machine": _machine(),
        "command": _command(asked, list(taken)),
        "commit": commit,
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": int(figures.get("peak_rss_mb", 0)) or peak_rss_mb(),
        "figures": {key: round(float(value), 6) for key, value in figures.items()},
    }
    path = HERE / "results" / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{path.relative_to(HERE.parent)}: {record['seconds']} s, {record['peak_rss_mb']} MB")


def tell(stage: str, share: float) -> None:
    """The stages of a training, as they begin."""
    if share == 0.0 and stage:
        print(f"{time.strftime('%H:%M:%S')} {stage}", flush=True)


def _command(asked: argparse.Namespace, taken: list[str]) -> str:
    data = asked.data.name if asked.data else None
    given = {"data": data, "dataset": asked.dataset, "seeds": asked.seeds, "peers": asked.peers}
    settings = "".join(f" {name.upper()}={given[name]}" for name in taken if given[name])
    return f"make bench NAME={asked.name}{settings}"


def _commit() -> str:
    """What the code was, with a + where files have been changed since; nothing outside of a repository."""
    git = [shutil.which("git") or "", "-C", str(HERE), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() if git[0] else ""


def _machine() -> dict[str, object]:
    memory = Path("/proc/meminfo")
    total_kb = int(memory.read_text().split()[1]) if memory.exists() else 0
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(total_kb / 1e6, 1),
        "system": platform.platform(terse=True),
        "python": sys.version.split()[0],
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


if __name__ == "__main__":
    main()
