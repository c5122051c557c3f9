"""How much of what exact search finds the indexes of a release find."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from endcap.app.publish import read_release
from endcap.core.artifacts import ReleaseStore
from endcap.core.protocols import VectorIndex
from endcap.core.types import Context, Float32Array, Int32Array, Placement
from endcap.features.state import context
from endcap.models.content import ContentSource
from endcap.models.sequence_source import SequenceSource

K, ASKED = 100, 300


class Overheard:
    """An index that keeps what it is asked."""

    def __init__(self, index: VectorIndex) -> None:
        self.index = index
        self.asked: list[Float32Array] = []

    def search(self, vector: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        self.asked.append(vector)
        return self.index.search(vector, k)

    def search_many(self, vectors: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        self.asked += list(vectors)
        return self.index.search_many(vectors, k)

    def at(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        return self.index.at(vector, items)


def recall_at_100(workspace: Path) -> dict[str, float]:
    """`recall@100`: the least of all sources that search vectors; `recall@100_<source>`: each, and `indexed_<source>`:
    its vectors. Asked with what shoppers of the shop would ask them with."""
    releases = ReleaseStore(workspace / "releases")
    release = read_release(releases, releases.current() or "")
    rows = np.random.default_rng(3).integers(len(release.histories), size=ASKED).tolist()
    now_ms = release.fitted.until_ms
    contexts = [context(release.histories.at(row), now_ms, Placement.HOME) for row in rows]
    found: dict[str, float] = {}
    for source in release.fitted.sources:
        if isinstance(source, ContentSource):
            vectors, index = source.kinds, source.index
            source.index = heard = Overheard(index)
        elif isinstance(source, SequenceSource):
            vectors, index = source.item_vectors, source._index  # looked at from outside on purpose
            source._index = heard = Overheard(index)
        else:
            continue
        _ask(source, contexts)
        found[f"recall@100_{source.name}"] = _recall(index, np.asarray(vectors), heard.asked)
        found[f"indexed_{source.name}"] = len(vectors)
    recalls = [value for name, value in found.items() if name.startswith("recall")]
    return {"recall@100": min(recalls, default=float("nan")), **found}


def _ask(source: ContentSource | SequenceSource, contexts: list[Context]) -> None:
    for one in contexts:
        source.weigh(one).top(K)


def _recall(index: VectorIndex, vectors: Float32Array, asked: list[Float32Array]) -> float:
    """Mean over the vectors asked with. A row counts as found where one as near stands in its place, for equal rows
    have no order."""
    k = min(K, len(vectors))
    shares = []
    for vector in asked:
        exact = vectors @ vector
        bar = np.partition(exact, -k)[-k] - 1e-6 * abs(exact).max()
        shares.append(float((exact[index.search(vector, k)[0]] >= bar).sum()) / k)
    return float(np.mean(shares))
