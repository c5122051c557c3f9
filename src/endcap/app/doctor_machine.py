"""What of a machine keeps a shop from running well: versions, extras, disk, rights, limits, threads."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from endcap.app.config import Config
from endcap.app.findings import Finding, ok, problem, warning
from endcap.app.state import URL_VARIABLE
from endcap.data.open_store import VARIABLE, is_embedded
from endcap.encoders.speech import SpeechConfig

TESTED_PYTHON = (3, 11)
CONSTRAINTS = (Path(__file__).parents[1] / "constraints.txt", Path(__file__).parents[3] / "constraints.txt")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MB, GB = 2**20, 2**30
LEAST_FREE, LITTLE_FREE = 200 * MB, 2 * GB
LEAST_INODES, LITTLE_INODES = 100, 10_000
LEAST_FILES, FEW_FILES = 256, 1024
PIP = "pip install -c constraints.txt"


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    text = ".".join(map(str, version))
    if version[:2] == TESTED_PYTHON:
        yield ok("python", f"Python {text} is what Endcap is tested on.")
    else:
        tested = ".".join(map(str, TESTED_PYTHON))
        yield warning(
            "python", f"Python {text} runs; Endcap is tested on {tested}.", f"Where something is odd, try {tested}."
        )


def packages(installed: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """The packages that a server needs, against what Endcap asks for and what it was tested with. installed: name ->
    version; None: those of this Python."""
    tested, wrong, untested = _tested(), [], []
    try:
        floors = _floors()
    except importlib.metadata.PackageNotFoundError:
        yield warning("packages", "Endcap runs from a folder and is not installed.", "pip install -e . in its folder")
        return
    for name, floor in floors.items():
        version = _version(name) if installed is None else installed.get(name)
        if version is None:
            wrong.append(f"{name} is not installed")
        elif floor and _numbers(version) < _numbers(floor):
            wrong.append(f"{name} is {version}, and {floor} is the least")
        elif name in tested and _numbers(version)[:1] != _numbers(tested[name])[:1]:
            untested.append(f"{name} {version} (tested: {tested[name]})")
    if wrong:
        yield problem("packages", f"{_listed(wrong)}.", "Install what is missing or old: pip install -U endcap")
    if untested:
        yield warning(
            "packages", f"Other major versions than tested are installed: {_listed(untested)}.", f"{PIP} endcap"
        )
    if not wrong and not untested:
        yield ok("packages", f"All {len(floors)} packages that a server needs are there, in versions that fit.")


def extras(config: Config, has: Mapping[str, bool] | None = None) -> Iterator[Finding]:
    """What endcap.toml asks for that is not installed. has: module -> whether it is there; None: look."""
    missing = False
    for extra, modules, what, level in _wanted(config):
        gone = [name for name in modules if not (_is_there(name) if has is None else has.get(name, False))]
        if gone:
            missing = True
            said = f"{what}, and {_listed(gone)} {'is' if len(gone) == 1 else 'are'} not installed."
            yield level("extras", said, f"pip install 'endcap[{extra}]'")
    if not missing:
        yield ok("extras", "Every extra that endcap.toml asks for is installed.")


def _wanted(config: Config) -> Iterator[tuple[str, tuple[str, ...], str, Callable[[str, str, str], Finding]]]:
    """Extra, the modules of it, what it is wanted for, and how bad it is to be without."""
    sources = set(config.train.sources)
    if "sequence" in sources:
        yield "train", ("torch", "onnx", "onnxscript", "safetensors"), "Training here needs the sequence model", warning
    if "content" in sources and "text" in config.content.modalities:
        yield "text", ("torch", "transformers"), "Training here reads the catalogue's texts", warning
    if config.speech != SpeechConfig():
        yield "speech", ("faster_whisper",), "[speech] names how clips are heard", problem
    if store_url(config):
        yield "postgres", ("psycopg", "psycopg_pool"), "The store is on Postgres", problem
    if state_url(config):
        yield "redis", ("redis",), "The shoppers' state is on Redis", problem


def store_url(config: Config) -> str:
    """Of Postgres; empty where the store is in the workspace."""
    return "" if is_embedded(config.store) else os.environ.get(VARIABLE) or config.store.url


def state_url(config: Config) -> str:
    """Of Redis; empty where each process keeps the state itself."""
    return os.environ.get(URL_VARIABLE, config.state.url)


def disk(folder: Path) -> Iterator[Finding]:
    usage, files = shutil.disk_usage(folder), os.statvfs(folder)
    free = f"{usage.free / GB:,.1f} GB of {usage.total / GB:,.1f} GB are free where the workspace is."
    mend = "Free some space, or move the workspace to a larger disk."
    yield _left("disk", free, mend, usage.free, LEAST_FREE, LITTLE_FREE)
    if not files.f_files:  # the file system makes them as they are needed
        return
    left = f"{files.f_favail:,} more files can be made there."
    mend = "Remove what has very many small files, or move the workspace."
    yield _left("inodes", left, mend, files.f_favail, LEAST_INODES, LITTLE_INODES)


def _left(check: str, said: str, mend: str, free: int, least: int, little: int) -> Finding:
    if free < least:
        return problem(check, said, mend)
    return warning(check, said, mend) if free < little else ok(check, said)


def permissions(folder: Path) -> Iterator[Finding]:
    try:
        for place in (folder, folder / "store"):  # a store on Postgres has no folder
            if place.is_dir():
                with tempfile.TemporaryFile(dir=place):
                    pass
    except OSError as error:
        yield problem(
            "permissions",
            f"{folder} cannot be written to: {error.strerror}.",
            f"Give it to the user that runs Endcap: chown -R USER {folder}",
        )
        return
    open_to = [path for path in (folder, folder / "store", folder / "releases") if _others_write(path)]
    if open_to:
        yield warning(
            "permissions",
            f"Any user of this machine can write to {_listed([str(path) for path in open_to])}.",
            f"chmod -R o-w {folder}",
        )
        return
    yield ok("permissions", "The workspace can be written to, and not by everybody.")


def open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"A process may have {soft:,} files and connections open."
    more = f"Raise it before the start (it may go up to {hard:,}): ulimit -n 65536"
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        yield ok("open_files", said)
    elif soft < LEAST_FILES:
        yield problem("open_files", said, more)
    else:
        yield warning("open_files", said, more)


def threads(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """`endcap serve` takes one thread for an answer where nothing else is said."""
    said = [f"{name}={environment[name]}" for name in THREAD_VARIABLES if environment.get(name, "1") != "1"]
    if said:
        yield warning(
            "threads",
            f"The environment says {_listed(said)}; requests run beside each other already, and slow each other down.",
            f"Before `endcap serve`: unset {' '.join(entry.partition('=')[0] for entry in said)}",
        )
        return
    yield ok("threads", "A server computes each answer in one thread.")


def _tested() -> dict[str, str]:
    """name -> version, from the constraints that come with Endcap."""
    for path in CONSTRAINTS:
        if path.is_file():
            lines = (line.partition("==") for line in path.read_text("utf-8").splitlines() if "==" in line)
            return {_plain(name): version for name, _, version in lines}
    return {}


def _floors() -> dict[str, str]:
    """name -> the least version, of what Endcap needs without any extra."""
    found = {}
    for line in importlib.metadata.requires("endcap") or []:
        name = re.match(r"[\w.-]+", line)
        if name is None or "extra ==" in line or ("sys_platform" in line and sys.platform == "win32"):
            continue
        floor = re.search(r">=\s*([\w.]+)", line)
        found[_plain(name[0])] = floor[1] if floor else ""
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _others_write(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & stat.S_IWOTH)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def _listed(parts: list[str]) -> str:
    return ", ".join(parts)
