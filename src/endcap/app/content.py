"""Content vectors of the catalogue: encoded once, cached by content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from endcap.app.config import Config
from endcap.core.errors import MissingExtraError
from endcap.core.types import Float32Array
from endcap.features.items import ItemTable


def content_vectors(
    table: ItemTable, config: Config, cache: Path, progress: Callable[[str, float], None], notes: list[str]
) -> Float32Array | None:
    """float32 [items, the encoder's dimensions], rows of unit length, zero for items without text.

    None, with a note, where the catalogue has no text or the extra `text` is not installed.
    """
    from endcap.encoders.cache import CachedEncoder
    from endcap.encoders.text import TextEncoder

    texts = table.texts()
    if not any(texts):
        notes.append("The catalogue has no text, so there are no content vectors.")
        return None
    stage = "encode the catalogue's texts"
    progress(stage, 0.0)
    try:
        encoder = TextEncoder(
            config.text, progress=lambda done, total: progress(stage, done / max(1, total)), noted=notes.append
        )
    except MissingExtraError as error:
        notes.append(f"There are no content vectors: {error}")
        return None
    distinct, place = np.unique(np.array(texts, dtype=object), return_inverse=True)
    vectors = CachedEncoder(encoder, cache / "text").encode(distinct.tolist())
    return vectors[place]
