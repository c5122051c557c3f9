"""Candidate sources, fitted from histories and read back from a release.

Fitting is split by how fast a source ages: `fit_fresh` takes a second and is done again for every moment that training
looks at; `fit_lasting` takes longer and holds for weeks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from scipy import sparse

from endcap.app.config import Config
from endcap.core.errors import ArtifactError
from endcap.core.protocols import CandidateSource
from endcap.core.registry import Registry
from endcap.core.types import Float32Array, Int32Array
from endcap.features.ids import UNKNOWN
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.features.stats import ItemStats
from endcap.index.build import IndexConfig, build_index, open_index, save_index
from endcap.index.exact import ExactIndex
from endcap.models.baskets import Baskets
from endcap.models.buy_again import BuyAgain
from endcap.models.content import ContentSource, IndexFactory, alike, reduce
from endcap.models.neighbour_fits import ease_sources, knn_sources
from endcap.models.neighbours import NeighbourSource
from endcap.models.popularity import CategoryPopularity, Popularity, fit_category_popularity, fit_popularity
from endcap.models.sequence_source import SequenceSource
from endcap.models.shoppers import SimilarShoppers, fit_shoppers
from endcap.models.transitions import transition_sources
from endcap.models.words import word_source

INDEX = "index"
RARE = 0.01
EDGES = ("transitions", "transitions_last", "second_hop")

Loader = Callable[[Path, IndexFactory], CandidateSource]
LOADERS: Registry[Loader] = Registry("candidate source", "endcap.candidates")
LOADERS.add("Popularity", lambda folder, _: Popularity.load(folder))
LOADERS.add("CategoryPopularity", lambda folder, _: CategoryPopularity.load(folder))
LOADERS.add("BuyAgain", lambda folder, _: BuyAgain.load(folder))
LOADERS.add("NeighbourSource", lambda folder, _: NeighbourSource.load(folder))
LOADERS.add("SimilarShoppers", lambda folder, _: SimilarShoppers.load(folder))
LOADERS.add("ContentSource", ContentSource.load)
LOADERS.add("SequenceSource", SequenceSource.load)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What a pipeline is made of. until_ms: everything here was fitted on events strictly before it."""

    table: ItemTable
    stats: ItemStats
    sources: tuple[CandidateSource, ...]
    until_ms: int

    def best_sellers(self) -> Int32Array:
        """Every item from best to least selling these days, then over all time, then in the order of the catalogue."""
        stats = self.stats
        return np.lexsort((np.arange(len(stats.baskets)), -stats.baskets, -stats.lately)).astype(np.int32)


class _Entry(msgspec.Struct, frozen=True):
    kind: str
    folder: str


def idle(histories: Histories, table: ItemTable) -> dict[str, str]:
    """Sources that could tell nothing on this log, each with the reason: they would only cost every answer time."""
    baskets = Baskets.build(histories, len(table))
    had = baskets.content.nnz
    found = {}
    if had and had - baskets.by_user().nnz < RARE * had:
        once = "hardly anybody buys a thing twice"
        found = {"buy_again": once, "newcomers": f"{once}, so that it would say what trending says"}
    if (table.leaf == UNKNOWN).all():
        found["category"] = "the catalogue has no categories"
    return found


def fit_fresh(histories: Histories, table: ItemTable, until_ms: int, config: Config) -> list[CandidateSource]:
    """Sources that follow the season: popularity, lately and by category; buy-again, which has nothing to fit."""
    wanted = set(config.train.sources)
    found: list[CandidateSource] = [
        *fit_popularity(histories, len(table), until_ms, config.popularity),
        fit_category_popularity(histories, table, until_ms, config.popularity),
        BuyAgain(config.buy_again),
        fit_shoppers(histories, len(table), until_ms, config.shoppers),
    ]
    return [source for source in found if source.name in wanted]


def fit_lasting(
    histories: Histories, table: ItemTable, content: Float32Array | None, config: Config, wanted: Set[str]
) -> list[CandidateSource]:
    """Sources that count pairs over all of history, and content, of those wanted. content: float32 [items, any], or
    None."""
    baskets = Baskets.build(histories, len(table))
    found: list[CandidateSource] = []
    if wanted & {"together", "knn", "knn_last"}:
        found += knn_sources(baskets, config.neighbours)
    if wanted & {"ease", "ease_cart"}:
        found += ease_sources(baskets, config.neighbours)
    if wanted & set(EDGES):
        found += transition_sources(baskets, config.transitions, wanted, _alike(content, config))
    if "words" in wanted and any(texts := table.texts()):
        found.append(word_source(texts, config.words))
    if "content" in wanted and content is not None:
        found.append(ContentSource.of(reduce(content, config.train.content_dim), ExactIndex))
    return [source for source in found if source.name in wanted]


def _alike(content: Float32Array | None, config: Config) -> sparse.csr_array | None:
    """What items borrow edges from; None where they borrow none, or have nothing to be alike by."""
    if content is None or not config.transitions.borrowed:
        return None
    return alike(reduce(content, config.train.content_dim), config.transitions.alike, ExactIndex)


def save_sources(sources: Sequence[CandidateSource], folder: Path, config: IndexConfig, histories: Histories) -> None:
    """One folder a source, and `sources.json`, which keeps their order and kinds. Those that search many vectors get an
    index, made here once: training asks the exact one. histories: of the release, which the sequence model reads."""
    entries = []
    for source in sources:
        part = folder / source.name
        part.mkdir(parents=True)
        source.save(part)
        if isinstance(source, ContentSource | SequenceSource):
            save_index(build_index(source.searched, config, source.n_items), part / INDEX)
        if isinstance(source, SequenceSource):
            source.read(histories, config.shoppers).save(part)
        entries.append(_Entry(type(source).__name__, source.name))
    (folder / "sources.json").write_bytes(msgspec.json.encode(entries))


def load_sources(folder: Path) -> tuple[CandidateSource, ...]:
    return tuple(_load(entry, folder / entry.folder) for entry in _entries(folder))


def source_names(folder: Path) -> list[str]:
    """Of the sources that `load_sources` would load."""
    return [entry.folder for entry in _entries(folder)]


def _load(entry: _Entry, folder: Path) -> CandidateSource:
    return LOADERS.get(entry.kind)(folder, lambda vectors: open_index(ExactIndex(vectors), folder / INDEX))


def _entries(folder: Path) -> list[_Entry]:
    try:
        return msgspec.json.decode((folder / "sources.json").read_bytes(), type=list[_Entry])
    except (OSError, msgspec.MsgspecError) as error:
        raise ArtifactError(
            f"The list of sources cannot be read: {error}.", where=str(folder), next_step="Train again."
        ) from error
