"""An exported encoder's folder: read and checked, run, and written so that nothing half done is ever found.

Every file is named with its SHA-256 in a JSON file of settings, which is written last. Imports neither torch nor
transformers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import ArtifactError, EndcapError, ServiceError
from endcap.encoders.cpu import overflows_int8
from endcap.encoders.packaged import models_folder

EXPORTER = 1  # counted up when what an export writes changes


class Checked(Protocol):
    """Settings that know the checksums of the files beside them."""

    @property
    def sha256(self) -> dict[str, str]: ...


Settings = TypeVar("Settings", bound=Checked)


def read(
    folder: Path, settings: str, kind: type[Settings], names: Sequence[str], again: str
) -> tuple[Settings, dict[str, bytes], str]:
    """The settings, the other files' contents, checked, and 12 hexadecimal digits of all. settings: the file's name.
    again: what to do where a file is missing or another than was written, for the ArtifactError."""
    try:
        written = (folder / settings).read_bytes()
        found = msgspec.json.decode(written, type=kind)
        contents = {name: (folder / name).read_bytes() for name in names}
    except (OSError, msgspec.MsgspecError) as error:
        raise ArtifactError(f"The encoder cannot be read: {error}.", where=str(folder), next_step=again) from error
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != found.sha256.get(name):
            raise ArtifactError("The file is not the one that was written.", where=str(folder / name), next_step=again)
    return found, contents, hashlib.sha256(written).hexdigest()[:12]


def session(model: bytes, threads: int, place: Path, again: str) -> Any:
    """An onnxruntime session. place: of the file, for the ArtifactError where it cannot be run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if overflows_int8():  # then the exact products, at half the speed
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's have no common class of their own
        raise ArtifactError(f"{error}", where=str(place), next_step=again) from error


def exported_once(encoder: str, opened: Callable[[Path], object], export: Callable[[Path], object]) -> Path:
    """The folder of an encoder's export, written once for all shops of this user; again where it is damaged.

    encoder: its name, which says all that its vectors depend on. opened: raises ArtifactError for a damaged folder.
    Raises what `export` raises of ours, and ServiceError for all else, a folder that cannot be written among it.
    """
    digest = hashlib.blake2b(f"{EXPORTER} {encoder}".encode(), digest_size=8).hexdigest()
    folder = models_folder() / "onnx" / digest
    try:
        opened(folder)
    except ArtifactError:
        _export(folder, export)
    return folder


def _export(folder: Path, export: Callable[[Path], object]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)  # so that it fails before the work
        export(folder)
    except EndcapError:
        raise
    except OSError as error:
        if not str(error.filename or folder).startswith(str(folder.parent)):
            raise _unexported(error) from error
        raise ServiceError(
            f"The exported model cannot be kept: {error.strerror or error}.",
            where=str(folder),
            next_step="Free some space there, or name another folder in ENDCAP_MODELS.",
        ) from error
    except Exception as error:  # of many libraries, for a model that none of them has met
        raise _unexported(error) from error


def _unexported(error: Exception) -> ServiceError:
    said = f"{type(error).__name__}: {str(error).strip().split(chr(10), 1)[0]}"
    return ServiceError(f"The model cannot be exported: {said}", next_step="Choose another model.")


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A folder beside the one that is wanted, gone again afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.with_name(f".{folder.name}-{os.getpid()}-{os.urandom(3).hex()}")
    staged.mkdir()
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def checksums(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def keep(staged: Path, folder: Path, names: Sequence[str], settings: str, written: msgspec.Struct) -> int:
    """Move the files into place, the settings last; returns how many bytes they have."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        replace_atomically(folder / name, (staged / name).read_bytes())
    replace_atomically(folder / settings, msgspec.json.format(msgspec.json.encode(written), indent=1))
    return sum((folder / name).stat().st_size for name in (*names, settings))
