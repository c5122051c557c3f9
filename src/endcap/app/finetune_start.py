"""What a tuning begins with: its rows, what they are measured by, its name, and a folder that is its own.

Of several processes the first one makes the table of a source and keeps it, and the others read what it kept: made by
each for itself, a log that grows would give each another table. All end where the first cannot begin.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from endcap.app.finetune_measure import Measures, measures_of
from endcap.core.artifacts import replace_atomically, write_atomically
from endcap.core.errors import CallerError, EndcapError
from endcap.data import database
from endcap.models import distributed
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import Examples, part_examples, read_examples
from endcap.models.finetune.tracking import CURVES, TRACKED
from endcap.models.finetune.tuned import files_digest, run_model

CHECKPOINT = "checkpoint"
TABLE, RUN_ID, FACTS = "examples.parquet", "run-id", "run.json"


@dataclass(frozen=True, slots=True)
class Source:
    """What a table is made of, and which may have grown when a run is gone on with, such as a shop's log.

    name: tells it from others. make: gives the table as of now.
    """

    name: str
    make: Callable[[], pl.DataFrame]


Data = Path | pl.DataFrame | Source


@dataclass(frozen=True, slots=True)
class Start:
    """digests: see `digests_of`. run_id: see `run_id_of`."""

    examples: Examples
    measures: Measures
    digests: dict[str, str]
    run_id: str


def begin(data: Data, config: FinetuneConfig, folder: Path) -> Start:
    """Read everything, and claim the folder. CallerError where it holds another run, or where processes read different
    rows or models; CallerError or DataError where the examples do not serve."""
    start: Start | None = None
    wrong: EndcapError | None = None
    try:
        if distributed.rank() == 0:
            examples, keep = opened(data, config, folder, begun=interrupted(folder))
            start = _start(examples, config)
            _claim(folder, start.run_id, data, keep)
    except EndcapError as error:
        wrong = error
    if said := distributed.as_first(str(wrong or "")):
        raise wrong or CallerError(said)
    if start is None:
        start = _start(opened(folder / TABLE if isinstance(data, Source) else data, config, folder, False)[0], config)
    if not distributed.same(int(start.run_id[:15], 16)):
        raise CallerError(
            "The processes have read different rows or models.",
            where=str(data) if isinstance(data, Path) else str(folder),
            next_step="Let nothing write to them while the run begins, and type the command again.",
        )
    return start


def opened(data: Data, config: FinetuneConfig, folder: Path, begun: bool) -> tuple[Examples, Callable[[], None]]:
    """The examples, and what keeps their table in the folder where it comes from a source. begun: whether there is
    something to go on with, which takes the table that is kept, if it is of the same source and settings."""
    if isinstance(data, Path):
        return read_examples(data, config), lambda: None
    if isinstance(data, pl.DataFrame):
        return part_examples(data, config), lambda: None
    kept, of = folder / TABLE, {"of": f"{data.name} {config.model_dump_json()}"}
    same = begun and kept.is_file() and pl.read_parquet_metadata(kept).get("of") == of["of"]
    table = pl.read_parquet(kept) if same else data.make()
    keep = partial(write_atomically, kept, lambda beside: table.write_parquet(beside, metadata=of))
    return part_examples(table, config), keep


def interrupted(folder: Path) -> bool:
    return any(folder.glob(f"{CHECKPOINT}-*.safetensors"))


def sweep(folder: Path) -> None:
    """Away with a run's folder in which nothing came to be but its name and table."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {RUN_ID, TABLE}:
        shutil.rmtree(folder)


def run_id_of(config: FinetuneConfig, digests: dict[str, str]) -> str:
    """16 hexadecimal digits of the settings, of every row, and of the models that are read."""
    said = " ".join([config.model_dump_json(), *digests.values()])
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def digests_of(examples: Examples, config: FinetuneConfig) -> dict[str, str]:
    return {"rows": rows_digest(examples), **model_digests(config)}


def rows_digest(examples: Examples) -> str:
    """Of every row and the part it is in; another version of polars may give another one."""
    digest = hashlib.blake2b(digest_size=8)
    for frame in (examples.train, examples.valid, examples.test):
        digest.update(frame.hash_rows(seed=0).to_numpy().tobytes())
    return digest.hexdigest()


def model_digests(config: FinetuneConfig) -> dict[str, str]:
    """Of the base, and of the teacher and of what rewrites texts where there are any: a name may come to stand for
    another model."""
    teacher, augment = config.distil.teacher, config.augment
    taught = bool(teacher) and (config.task.kind == "imitate" or run_model(teacher) is not None)
    rewriter = augment.masked_model if augment.share and augment.masked else ""
    names = {"base": config.base.name, "teacher": teacher if taught else "", "rewriter": rewriter}
    return {what: files_digest(name) for what, name in names.items() if name}


def _start(examples: Examples, config: FinetuneConfig) -> Start:
    measures, digests = measures_of(examples, config), digests_of(examples, config)
    return Start(examples, measures, digests, run_id_of(config, digests))


def _claim(folder: Path, run_id: str, data: Data, keep: Callable[[], None]) -> None:
    """Make the folder ours, or find it ours already. A run that ended, or that can be gone on with, is never written
    over. keep: called where it becomes ours."""
    database.make_folder(folder)
    done, begun = folder / FACTS, folder / RUN_ID
    if done.exists():
        raise CallerError(
            "The folder holds a finished run.", where=str(folder), next_step="Name another folder after --run."
        )
    ours = begun.exists() and begun.read_text("utf-8") == run_id
    if not ours and interrupted(folder):
        raise CallerError(
            "The folder holds an interrupted run of other data or settings, or on another base model.",
            where=str(folder),
            next_step="Go on with those, or name another folder after --run.",
        )
    if not ours:
        if begun.exists():
            _clear(folder, data)
        keep()
        replace_atomically(begun, run_id.encode())


def _clear(folder: Path, data: Data) -> None:
    """Away with what another run left that came to nothing, unless it is the table we are given."""
    for name in (CURVES, TABLE):
        if not (isinstance(data, Path) and data.resolve() == (folder / name).resolve()):
            (folder / name).unlink(missing_ok=True)
    for name in TRACKED:
        shutil.rmtree(folder / name, ignore_errors=True)
