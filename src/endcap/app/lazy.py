"""An encoder of a release, loaded when the first content comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from endcap.core.protocols import Encoder
from endcap.core.types import Float32Array
from endcap.encoders.media import Media

Content = TypeVar("Content", str, Media)


class LazyEncoder(Generic[Content]):
    """Loaded once, however many ask at a time. They are then answered beside each other, as an encoder that runs on
    onnxruntime can be."""

    def __init__(self, folder: Path, dim: int, load: Callable[[Path], Encoder[Content]]) -> None:
        """folder: of the encoder, two below the release's. dim: of what it gives, known before it is loaded."""
        self.name, self.dim = f"onnx:{folder.parent.parent.name}", dim
        self._folder, self._lock = folder, Lock()
        self._load: Callable[[Path], Encoder[Content]] = load
        self._encoder: Encoder[Content] | None = None

    def encode(self, contents: Sequence[Content]) -> Float32Array:
        """Raises what loading raises, each time, until it is loaded."""
        return self._loaded().encode(contents)

    def _loaded(self) -> Encoder[Content]:
        if self._encoder is None:
            with self._lock:
                if self._encoder is None:
                    self._encoder = self._load(self._folder)
        return self._encoder
