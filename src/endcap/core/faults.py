"""What a fault may say of itself in a log."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

from endcap.core.errors import ServiceError

FRAMES = 12  # of each error, the innermost: further out every request looks the same


def origin(error: BaseException) -> str:
    """Where an error came from, with those that caused it, on one line: kinds, files, lines and functions, and no
    message, for that may quote what a caller sent; but for ours of a service and the system's of a file, which do not.

    For example: "KeyError (runtime.py:12 in answer, pipeline.py:80 in _score), then ArtifactError (...): It is gone."
    """
    return ", then ".join(_steps(error, set()))


def _steps(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _steps(before, seen)
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    way = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames)
    words = str(error) if isinstance(error, ServiceError) else getattr(error, "strerror", None)
    yield f"{type(error).__qualname__} ({way})" + (f": {words}" if words else "")
