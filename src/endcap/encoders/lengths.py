"""What text encoders share: texts go with others of like length, and words before each say what it is read as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from endcap.core.types import Float32Array, Int64Array
from endcap.encoders.families import Pooling

TOKENISED_AT_ONCE = 8192
Tokens = list[int]


class Reader(Protocol):
    """A text encoder that reads with any words before each text. `name_with` names all that its vectors depend on."""

    dim: int

    def name_with(self, prefix: str) -> str: ...

    def encode_with(self, prefix: str, contents: Sequence[str]) -> Float32Array: ...


class Prefixed:
    """An encoder that reads as another does, with other words before each text."""

    def __init__(self, reader: Reader, prefix: str) -> None:
        self.name, self.dim = reader.name_with(prefix), reader.dim
        self._reader, self._prefix = reader, prefix

    def encode(self, contents: Sequence[str]) -> Float32Array:
        """As the other's own."""
        return self._reader.encode_with(self._prefix, contents)


def encode_by_length(
    contents: Sequence[str],
    *,
    dim: int,
    batch_size: int,
    tokenise: Callable[[list[str]], Sequence[Tokens]],
    forward: Callable[[Sequence[Tokens]], Float32Array],
    progress: Callable[[int, int], None] | None = None,
) -> Float32Array:
    """float32 [len(contents), dim]; all zero for a text of nothing but white space, or without tokens. Little padding,
    and memory peaks at once.

    tokenise: texts -> their tokens. forward: tokens of at most `batch_size` texts, the longest first -> float32
    [texts, dim]. progress: called with (texts done, texts in all) after each batch.
    """
    vectors = np.zeros((len(contents), dim), dtype=np.float32)
    filled = [place for place, text in enumerate(contents) if text.strip()]
    rows: list[tuple[int, Tokens]] = []
    for start in range(0, len(filled), TOKENISED_AT_ONCE):
        places = filled[start : start + TOKENISED_AT_ONCE]
        rows.extend(zip(places, tokenise([contents[place] for place in places]), strict=True))
    rows = sorted((row for row in rows if row[1]), key=lambda row: -len(row[1]))
    done = len(contents) - len(rows)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        vectors[[place for place, _ in batch]] = forward([tokens for _, tokens in batch])
        done += len(batch)
        if progress is not None:
            progress(done, len(contents))
    return vectors


def padded(rows: Sequence[Tokens], padding: int) -> tuple[Int64Array, Int64Array]:
    """Tokens on the left and padding on the right, and a mask that is 1 on tokens: int64 [rows, longest] both.

    On the right whatever a tokeniser prefers: there, models that look back never see it, and places count from 0.
    """
    lengths = np.array([len(row) for row in rows])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    tokens = np.full(mask.shape, padding, dtype=np.int64)
    tokens[mask == 1] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return tokens, mask


def closing_token(tokeniser: Any, pooling: Pooling) -> int | None:
    """The token that ends every text, where it is the last that is pooled and the tokeniser sets none itself."""
    if pooling != "last" or tokeniser.eos_token_id is None:
        return None
    whole, bare = (tokeniser("a", add_special_tokens=added)["input_ids"] for added in (True, False))
    return int(tokeniser.eos_token_id) if whole[-1:] == bare[-1:] else None
