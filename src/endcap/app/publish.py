"""Writing what training made into a release, and reading a release into something that answers.

<release>/
  items.parquet       the catalogue at training time, in the order of positions
  stats/              what past sales say about each item
  histories/          every user's events, mapped rather than read
  sources/            one folder a candidate source
  content/            how pictures and sound are fused with words, and pictures laid among them (see `app.content`)
  search/             words and vectors of the items, and the encoder that reads queries (see `app.search`)
  ranker/             the LightGBM model and the names of its features, or a blend's weights; the shortlist's weights
  judge/              a cross-encoder for a second look and what it weighs, where that helps
  evaluation.json     every model beside every baseline, where training measured them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import endcap
from endcap.app.config import Config
from endcap.app.content import Content
from endcap.app.fusion import Fusion, Judged
from endcap.app.search import read_search, write_search
from endcap.app.sources import Fitted, load_sources, save_sources
from endcap.core.artifacts import Manifest, ReleaseStore
from endcap.core.errors import ArtifactError
from endcap.core.protocols import Selector
from endcap.core.types import Availability
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.features.stats import ItemStats
from endcap.recommend.filters import Eligible, catalogue_filters
from endcap.recommend.hydrate import Hydrator
from endcap.recommend.pipeline import Pipeline
from endcap.recommend.search import Searcher
from endcap.recommend.second_look import SecondLook
from endcap.recommend.select import Best, NewItems, SlateConfig


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """A loaded release. seq: the newest event of the log that its histories hold. fusion, slate: what its pipeline was
    built with."""

    manifest: Manifest
    fitted: Fitted
    histories: Histories
    pipeline: Pipeline
    searcher: Searcher
    eligible: Eligible
    seq: int
    fusion: Fusion
    slate: SlateConfig

    @property
    def id(self) -> str:
        return self.manifest.release_id


def build_pipeline(
    fitted: Fitted,
    fusion: Fusion,
    per_source: int,
    shown: NDArray[np.bool_] | None = None,
    slate: SlateConfig | None = None,
) -> tuple[Pipeline, Eligible]:
    """The one path that trains and answers. shown: bool [items]; None means what the catalogue says. slate: how places
    are given; None means to the best."""
    hydrator = Hydrator(fitted.table, fitted.stats, [source.name for source in fitted.sources])
    eligible = Eligible(shown_now(fitted.table) if shown is None else shown)
    pipeline = Pipeline(
        table=fitted.table,
        sources=fitted.sources,
        hydrator=hydrator,
        scorer=fusion.scorer,
        shortlist=fusion.shortlist,
        second_look=_second_look(fusion.judged, fitted.table),
        filters=(eligible, *catalogue_filters(fitted.table)),
        selectors=selectors(slate or SlateConfig(), fitted.stats),
        per_source=per_source,
        fallback=fitted.best_sellers(),
        sold=int((fitted.stats.baskets > 0).sum()),
    )
    return pipeline, eligible


def _second_look(judged: Judged | None, table: ItemTable) -> SecondLook | None:
    return None if judged is None else SecondLook(judged.judge, table.texts(), judged.weights)


def selectors(slate: SlateConfig, stats: ItemStats) -> tuple[Selector, ...]:
    if not slate.new_every:
        return (Best(),)
    return NewItems(np.expm1(stats.baskets).round() < slate.new_below, slate.new_every), Best()


def shown_now(table: ItemTable) -> NDArray[np.bool_]:
    """bool [items]: neither hidden nor out of stock."""
    hidden = [kind.value for kind in Availability if not kind.shown]
    mask: NDArray[np.bool_] = ~table.frame["availability"].is_in(hidden).to_numpy()
    return mask


def write_release(
    releases: ReleaseStore,
    *,
    fitted: Fitted,
    histories: Histories,
    fusion: Fusion,
    content: Content | None,
    notes: list[str],
    config: Config,
    data: dict[str, Any],
    metrics: dict[str, float],
    evaluation: dict[str, Any] | None,
    now_ms: int,
) -> Manifest:
    """Write and commit; publishing it is another step. content: what is known of the items.
    notes: takes what a reader should know. data must hold `seq`."""
    with releases.stage() as folder:
        for part in ("stats", "histories", "sources", "ranker", "search"):
            (folder / part).mkdir()
        fitted.table.save(folder / "items.parquet")
        fitted.stats.save(folder / "stats")
        histories.save(folder / "histories")
        save_sources(fitted.sources, folder / "sources", config.index, histories)
        fusion.save(folder / "ranker")
        if content is not None:
            (folder / "content").mkdir()
            content.save(folder / "content")
        notes += write_search(folder / "search", fitted.table, content, config)
        if fusion.judged is not None:
            (folder / "judge").mkdir()
            fusion.judged.save(folder / "judge")
        if evaluation is not None:
            (folder / "evaluation.json").write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=1))
        manifest = Manifest(
            code_version=endcap.__version__,
            seed=config.train.seed,
            config=config.model_dump(mode="json"),
            data={**data, "until_ms": fitted.until_ms, "per_source": config.train.per_source},
            metrics=metrics,
        )
        return releases.commit(folder, manifest, now_ms=now_ms)


def read_release(releases: ReleaseStore, release_id: str, slate: SlateConfig | None = None) -> Release:
    """Verify and load. Imports neither torch nor transformers."""
    folder, manifest = releases.open(release_id)
    table = ItemTable.load(folder / "items.parquet")
    until_ms, per_source, seq = (fact(manifest, name) for name in ("until_ms", "per_source", "seq"))
    fitted = Fitted(table, ItemStats.load(folder / "stats"), load_sources(folder / "sources"), until_ms)
    names = Hydrator(table, fitted.stats, [source.name for source in fitted.sources]).names
    fusion = read_fusion(folder, names)
    pipeline, eligible = build_pipeline(fitted, fusion, per_source, slate=slate)
    searcher = read_search(folder, fitted, fusion, pipeline.filters)
    histories = Histories.load(folder / "histories")
    return Release(manifest, fitted, histories, pipeline, searcher, eligible, seq, fusion, slate or SlateConfig())


def read_fusion(folder: Path, names: Sequence[str]) -> Fusion:
    """What orders a release's candidates. names: of the features."""
    return replace(Fusion.load(folder / "ranker", names), judged=Judged.load(folder / "judge"))


def fact(manifest: Manifest, name: str) -> int:
    """A number that every release's manifest says of its data. ArtifactError where it does not."""
    if not isinstance(manifest.data.get(name), int):
        raise ArtifactError(
            f"The release's manifest does not say {name}.", where=manifest.release_id, next_step="Train again."
        )
    return int(manifest.data[name])
