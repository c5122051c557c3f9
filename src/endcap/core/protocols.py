"""The plug points: all that a third party can replace, on one page.

Each has at most three methods, a conformance suite in `endcap.testing`, and a registry (`core.registry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.core.types import Candidates, Context, Evidence, Float32Array, Int32Array, Query, Reason

Content_contra = TypeVar("Content_contra", contravariant=True)


@runtime_checkable
class EventSource(Protocol):
    """Somewhere events come from: a file, a table, a stream read to its end."""

    def scan(self) -> pl.LazyFrame:
        """Raw rows, columns already named as in `tables.EVENTS` where known, plus `line` (1-based)."""
        ...


@runtime_checkable
class Encoder(Protocol[Content_contra]):
    """Turns content into vectors: text as str, pictures and sound as a file's bytes or its path."""

    name: str
    dim: int

    def encode(self, contents: Sequence[Content_contra]) -> Float32Array:
        """float32 [len(contents), dim], each row of unit length (or all zero for empty content)."""
        ...


@runtime_checkable
class CandidateSource(Protocol):
    """Proposes and scores items for a context. Serves without torch; `save` writes what its loader reads."""

    name: str

    def weigh(self, context: Context) -> Evidence:
        """What this source says for this shopper now. Must not depend on anything but the context."""
        ...

    def explain(self, context: Context, item: int) -> Reason | None:
        """Why this source favours `item` (a catalogue position); None if it has nothing to say."""
        ...

    def save(self, folder: Path) -> None:
        """Write arrays (npy) and settings (json) into an existing empty folder."""
        ...


@runtime_checkable
class BulkSource(CandidateSource, Protocol):
    """A source that is faster for many contexts at once than for one after the other."""

    def weigh_many(self, contexts: Sequence[Context]) -> Sequence[Evidence]:
        """What `weigh` says of each context, give or take rounding."""
        ...


@runtime_checkable
class Filter(Protocol):
    """Says which items may be shown. Filters are exact and run after scoring, over everything."""

    name: str

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        """bool [n]: True where the item may appear."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Gives candidates their final score."""

    def score(self, features: Float32Array, candidates: Candidates) -> Float32Array:
        """float32 [n] from features float32 [n, columns]; higher is better."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Reads what a shopper acted on together with each of a few candidates, which no score of one item alone can do."""

    def judge(self, history: Sequence[str], candidates: Sequence[str]) -> Float32Array:
        """float32 [len(candidates)]: logits, higher is better, each candidate for itself. history: texts of what the
        shopper acted on last, oldest first, at least one. Serves without torch."""
        ...


@runtime_checkable
class Selector(Protocol):
    """Fills the slate: takes what remains, best first, and what is chosen already; returns the longer choice."""

    def select(self, query: Query, ranked: Int32Array, chosen: Int32Array) -> Int32Array:
        """int32 [<= query.n], a prefix of which is `chosen`; no duplicates."""
        ...


@runtime_checkable
class VectorIndex(Protocol):
    """Nearest neighbours by inner product."""

    def search(self, vector: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """The k rows with the greatest inner product, best first: positions int32 [k], scores float32 [k]."""
        ...

    def search_many(self, vectors: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        """`search` for float32 [q, d]: positions int32 [q, k], scores float32 [q, k]."""
        ...

    def at(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        """float32 [n]: inner products with the given rows."""
        ...
