"""The simplest objects that keep each plug point's promises: stand-ins for tests, and examples to start from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from endcap.core.tables import EVENTS, schema
from endcap.core.types import Candidates, Context, Float32Array, Int32Array, Query, Reason


class FakeEncoder:
    """Texts as unit vectors drawn from a hash of the text: equal texts meet, others are nearly at right angles."""

    def __init__(self, dim: int = 16, name: str = "fake") -> None:
        self.name, self.dim = name, dim

    def encode(self, contents: Sequence[str]) -> Float32Array:
        vectors = np.zeros((len(contents), self.dim), np.float32)
        for row, content in enumerate(contents):
            if content.strip():
                seed = int.from_bytes(blake2b(content.encode(), digest_size=8).digest(), "little")
                vector = np.random.default_rng(seed).standard_normal(self.dim)
                vectors[row] = vector / np.linalg.norm(vector)
        return vectors


class FakeEvidence:
    """The same scores, float32 [items], whatever is asked."""

    def __init__(self, scores: Float32Array) -> None:
        self._scores = scores

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        order = np.lexsort((np.arange(len(self._scores)), -self._scores))
        best = order[self._scores[order] > 0][:k].astype(np.int32)
        return best, self._scores[best]

    def at(self, items: Int32Array) -> Float32Array:
        return self._scores[items]


class FakeSource:
    """Favours items by scores given once, the same for every shopper. `asked` keeps the contexts it was shown."""

    def __init__(self, scores: Sequence[float], name: str = "fake") -> None:
        self.name = name
        self.asked: list[Context] = []
        self._scores = np.array(scores, np.float32)

    def weigh(self, context: Context) -> FakeEvidence:
        self.asked.append(context)
        return FakeEvidence(self._scores)

    def weigh_many(self, contexts: Sequence[Context]) -> list[FakeEvidence]:
        return [self.weigh(context) for context in contexts]

    def explain(self, context: Context, item: int) -> Reason | None:
        score = float(self._scores[item])
        return Reason(self.name, "fake", values={"score": score}) if score > 0 else None

    def save(self, folder: Path) -> None:
        np.save(folder / "scores.npy", self._scores)
        (folder / "source.json").write_text(json.dumps({"name": self.name}))

    @classmethod
    def load(cls, folder: Path) -> FakeSource:
        scores = np.load(folder / "scores.npy", allow_pickle=False)
        return cls(scores.tolist(), json.loads((folder / "source.json").read_text())["name"])


class FakeFilter:
    """Hides the catalogue positions it is given."""

    def __init__(self, hidden: Iterable[int] = (), name: str = "fake") -> None:
        self.name = name
        self._hidden = np.array(sorted(hidden), np.int32)

    def allowed(self, query: Query, context: Context, items: Int32Array) -> NDArray[np.bool_]:
        return ~np.isin(items, self._hidden)


class FakeScorer:
    """The sum of each candidate's features."""

    def score(self, features: Float32Array, candidates: Candidates) -> Float32Array:
        return np.asarray(features.sum(axis=1), np.float32)


class FakeJudge:
    """How many words a candidate shares with each text of the history, the latest weighing most."""

    def judge(self, history: Sequence[str], candidates: Sequence[str]) -> Float32Array:
        logits = np.zeros(len(candidates), np.float32)
        for age, text in enumerate(reversed(history)):
            words = set(text.lower().split())
            logits += [0.5**age * len(words & set(candidate.lower().split())) for candidate in candidates]
        return logits


class FakeSelector:
    """Fills the slate from the top."""

    def select(self, query: Query, ranked: Int32Array, chosen: Int32Array) -> Int32Array:
        fresh = ranked[~np.isin(ranked, chosen)]
        return np.concatenate([chosen, fresh[: max(query.n - len(chosen), 0)]]).astype(np.int32)


class FakeIndex:
    """Sorts every row for every search. vectors: float32 [n, d]."""

    def __init__(self, vectors: Float32Array) -> None:
        self._vectors = vectors

    def search(self, vector: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        scores = self.at(vector, np.arange(len(self._vectors), dtype=np.int32))
        best = np.lexsort((np.arange(len(scores)), -scores))[:k].astype(np.int32)
        return best, scores[best]

    def search_many(self, vectors: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        found = [self.search(vector, k) for vector in vectors]
        return np.stack([items for items, _ in found]), np.stack([scores for _, scores in found])

    def at(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        return np.asarray((self._vectors[items] * vector).sum(axis=1), np.float32)


class FakeEventSource:
    """Rows given as mappings of `tables.EVENTS` columns; missing ones are null, lines are counted from 1."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._frame = pl.DataFrame(rows, schema=schema(EVENTS)) if rows else pl.DataFrame(schema=schema(EVENTS))

    def scan(self) -> pl.LazyFrame:
        return self._frame.lazy().with_row_index("line", offset=1).with_columns(pl.col("line").cast(pl.Int64))
