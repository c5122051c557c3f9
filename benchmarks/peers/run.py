"""Runs the peers: an environment each, made once from its pinned requirements, and a script in it.

Environments are kept in `.peers/` beside `src/`, or where ENDCAP_PEERS says. The pins are for Python 3.11.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from endcap.core.errors import CallerError, ServiceError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Peer -> its requirements; the script has the peer's name.
PEERS = {
    "rectools_sasrec": "rectools.txt",
    "lenskit_slim": "lenskit.txt",
    "implicit_als": "implicit.txt",
    "implicit_bpr": "implicit.txt",
}
# RecTools trains in three quarters of the time where memory is not given back to the system after every batch.
SETTINGS = {"rectools_sasrec": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}}
BOUNDS = ("_lo", "_hi")
SHOWN_ERRORS = 20

Progress = Callable[[str, float], None]


def named(peers: str) -> list[str]:
    """The peers that PEERS names, by comma or `all`. CallerError for one that there is not."""
    names = list(PEERS) if peers == "all" else [name for name in peers.split(",") if name]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise CallerError(
            f"No peer is called {unknown[0]!r}.", where="PEERS", next_step=f"Known: {', '.join(PEERS)}, or all."
        )
    return names


def run_peers(
    names: Sequence[str], folder: Path, *, seed: int, progress: Progress, minutes: float | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Each of these peers on a folder with `sequences.txt`, one after the other.

    Returns figures and details. Figures are flat: `ndcg@10__peer_<name>` with `_lo` and `_hi` at the very end, the
    same of `recall@10`, both also `_unfiltered`; `seconds_tuning`, `seconds_fit` (the fit that was tested),
    `users_per_second`, `peak_rss_mb`, `queries`, `queries_unfiltered`. Details are by peer, ready for JSON: settings,
    requirements, budget, trials or the curve; of a peer that failed, `error`, and it has no figures. minutes: for
    tuning, instead of each script's own budget.
    """
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name in names:
        progress(f"peer {name}: environment", 0.0)
        try:
            python = environment(HERE / PEERS[name])
            found = _run(name, python, folder, seed, minutes, progress)
        except ServiceError as error:  # what the others took hours for is not lost
            progress(f"peer {name}: {error}", 0.0)
            details[name] = {"requirements": _pins(HERE / PEERS[name]), "error": str(error)}
            continue
        figures |= {_named(figure, name): float(value) for figure, value in found["figures"].items()}
        details[name] = {"requirements": _pins(HERE / PEERS[name]), **found["details"]}
        progress(f"peer {name}: done", 1.0)
    return figures, details


def environment(requirements: Path) -> Path:
    """The Python of an environment with these requirements, made where there is none. Changed pins make another."""
    place = Path(os.environ.get("ENDCAP_PEERS") or ROOT / ".peers")
    text = f"{sys.version_info[:2]} {requirements.read_text('utf-8')}"
    made = place.absolute() / f"{requirements.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    python = made / "bin" / "python"
    ready = made / ".ready"
    if not ready.exists():
        venv.create(made, with_pip=True, clear=True)
        _checked([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], "pip", None)
        ready.touch()
    return python


def _run(name: str, python: Path, folder: Path, seed: int, minutes: float | None, progress: Progress) -> dict[str, Any]:
    with TemporaryDirectory() as place:
        out = Path(place) / "out.json"
        command = [str(python), "-m", f"benchmarks.peers.{name}", str(folder.absolute()), str(out), "--seed", str(seed)]
        if minutes is not None:
            command += ["--budget-minutes", str(minutes)]
        _checked(command, name, progress)
        found: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return found


def _checked(command: list[str], name: str, progress: Progress | None) -> None:
    """Run it from the root, and pass on what it prints. ServiceError with the end of what it complained of."""
    # Other packages on the path could be loaded instead of those that were pinned.
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env |= {"PYTHONNOUSERSITE": "1", **SETTINGS.get(name, {})}
    with TemporaryDirectory() as place, (Path(place) / "errors").open("w+", encoding="utf-8") as errors:
        running = subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=errors)
        with running:
            for line in running.stdout or ():
                if progress:
                    progress(f"peer {name}: {line.rstrip()}", 0.0)
        if running.returncode:
            errors.seek(0)
            last = "".join(errors.readlines()[-SHOWN_ERRORS:])
            raise ServiceError(f"It ended with {running.returncode}.", where=name, next_step=f"Its last words:\n{last}")


def _named(figure: str, name: str) -> str:
    bound = next((end for end in BOUNDS if figure.endswith(end)), "")
    return f"{figure.removesuffix(bound)}__peer_{name}{bound}"


def _pins(requirements: Path) -> list[str]:
    lines = requirements.read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
