"""Refitting: a release brought up to date with the log in a fraction of the time of a training.

What is counted (graph, item-kNN, EASE, popularity, similar shoppers, histories) is counted again over everything
recorded, which takes seconds; new items get their content vectors; the sequence model goes on for a few epochs from the
release's own weights. What orders candidates stays as it is: how much to trust which evidence changes slowly, and
learning it is what a training takes longest for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from endcap.app.config import Config
from endcap.app.content import Content, read_content
from endcap.app.fusion import Fusion
from endcap.app.ingest import Progress
from endcap.app.publish import fact, read_fusion, write_release
from endcap.app.run import Run
from endcap.app.sequences import refit_sequence
from endcap.app.sources import Fitted, fit_lasting, source_names
from endcap.core.artifacts import Manifest
from endcap.core.determinism import seed_everything
from endcap.core.errors import ArtifactError, CallerError, EndcapError, NotFoundError
from endcap.core.protocols import CandidateSource
from endcap.recommend.hydrate import Hydrator

if TYPE_CHECKING:
    from endcap.app.runtime import Shop

SEQUENCE = "sequence"


@dataclass(frozen=True, slots=True, eq=False)
class Refitted:
    """manifest: of the release, committed and not yet published. before: the release it was made from. new_events: what
    was recorded since. notes: sentences on what was decided. seconds: by stage."""

    manifest: Manifest
    before: str
    new_events: int
    notes: tuple[str, ...]
    seconds: dict[str, float]


def refit(shop: Shop, *, progress: Progress) -> Refitted:
    """See the module. NotFoundError where no release is published, CallerError where the settings ask for other sources
    than the release has, DataError where there is nothing to learn from."""
    release = shop.releases.current()
    if release is None:
        raise NotFoundError(
            "No release is published that could be refitted.",
            where=str(shop.folder),
            next_step=f"Train: endcap train --shop {shop.folder}",
        )
    return _Refit(shop, progress).run(release)


class _Refit(Run):
    content: Content | None

    def run(self, release: str) -> Refitted:
        seed_everything(self.config.train.seed)
        self.stage("read the release")
        folder, manifest = self.shop.releases.open(release)
        names = self._sources_of(folder)
        self.config = self._asked_alike(manifest)
        self.read()
        fitted = self._fit(folder, names)
        fusion = self._fusion_of(folder, fitted)
        self.stage("write release")
        written = write_release(
            self.shop.releases,
            fitted=fitted,
            histories=self.histories,
            fusion=fusion,
            content=self.content,
            notes=self.notes,
            config=self.config,
            data={**self.about(), "refit_of": release},
            metrics={},
            evaluation=None,
            now_ms=self.shop.clock(),
        )
        self.stage("")
        since = len(self.histories.events) - fact(manifest, "events")
        return Refitted(written, release, since, tuple(self.notes), self.seconds)

    def _sources_of(self, folder: Path) -> list[str]:
        """Those of the release; the run leaves out the others."""
        names, wanted = source_names(folder / "sources"), self.config.train.sources
        if missing := [name for name in names if name not in wanted]:
            raise CallerError(
                f"The release has the sources {missing}, and the settings do not name them.",
                where="train.sources",
                next_step=f"Train again with the new settings: endcap train --shop {self.shop.folder}",
            )
        self.left_out = set(wanted) - set(names)
        return names

    def _asked_alike(self, manifest: Manifest) -> Config:
        """The settings with as many candidates a source as the release's ranker has learned from."""
        train, taught = self.config.train, fact(manifest, "per_source")
        if train.per_source != taught:
            self.notes.append(
                f"Each source still proposes {taught} candidates, as when the ranker was taught; the settings now ask "
                f"for {train.per_source}, which a training will heed."
            )
        return self.config.model_copy(update={"train": train.model_copy(update={"per_source": taught})})

    def _fit(self, folder: Path, names: list[str]) -> Fitted:
        self.content = None
        if self.reads_content(names):
            self.content = read_content(self.table, self.config, self.shop.folder, self.stage, self.notes, folder)
        vectors = None if self.content is None else self.content.vectors
        self.stage("fit sources on the whole log")
        found: list[CandidateSource] = list(fit_lasting(self.histories, self.table, vectors, self.config, set(names)))
        if SEQUENCE in names:
            found.append(self._sequence(folder))
        self.stage("fit sources on the whole log")
        return self.assemble(self.histories, int(self.histories.events.ts_ms.max()) + 1, found)

    def _sequence(self, folder: Path) -> CandidateSource:
        """CallerError where the release's weights were made with other content vectors."""
        stage = "go on with the sequence model"
        self.stage(stage)
        try:
            return refit_sequence(
                self.histories,
                self.table.ids,
                self.content,
                self.config,
                folder / "sources" / SEQUENCE,
                self.shop.folder / "checkpoints",
                lambda share: self.stage(stage, share),
            )
        except CallerError as error:
            raise self._cannot(folder, error) from error

    def _fusion_of(self, folder: Path, fitted: Fitted) -> Fusion:
        """What ordered the release's candidates. CallerError where the features would be others now."""
        features = Hydrator(self.table, fitted.stats, [source.name for source in fitted.sources]).names
        try:
            return read_fusion(folder, features)
        except ArtifactError as error:
            raise self._cannot(folder, error) from error

    def _cannot(self, folder: Path, error: EndcapError) -> CallerError:
        return CallerError(
            f"The release cannot be refitted: {error.what}",
            where=str(folder),
            next_step=f"Train again: endcap train --shop {self.shop.folder}",
        )
