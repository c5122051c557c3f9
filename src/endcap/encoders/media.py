"""What pictures and sound come as: a file's bytes or its path. Read within bounds; what cannot be read is named."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from endcap.core.errors import DataError

Media = bytes | Path


class Refused(NamedTuple):
    """place: the path, or `contents[3]` for bytes. reason: a sentence."""

    place: str
    reason: str


def place_of(content: Media, position: int) -> str:
    """What to call a content in an error. position: in the sequence that was given, from 0."""
    return str(content) if isinstance(content, Path) else f"contents[{position}]"


def read_bounded(content: Media, max_bytes: int, place: str) -> bytes:
    """The file's bytes. Raises DataError for a file that is not there or cannot be read, and for one that is longer."""
    if isinstance(content, bytes):
        return _bounded(content, max_bytes, place)
    try:
        with content.open("rb") as file:
            return _bounded(file.read(max_bytes + 1), max_bytes, place)
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise DataError(
            f"The file cannot be read: {said}.", where=place, next_step="Name a file that is there."
        ) from error


def _bounded(content: bytes, max_bytes: int, place: str) -> bytes:
    if len(content) > max_bytes:
        raise DataError(
            f"The file is longer than the {max_bytes:,} bytes that are read.",
            where=place,
            next_step="Make it smaller, or raise `max_bytes`.",
        )
    return content
