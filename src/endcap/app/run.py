"""What every training goes through: the log as arrays, the catalogue, content vectors, sources in order, the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from endcap.app.content import holds
from endcap.app.ingest import Progress
from endcap.app.plans import one_by_one
from endcap.app.sources import EDGES, Fitted, fit_fresh, idle
from endcap.app.tasks import successes
from endcap.core.errors import DataError
from endcap.core.protocols import CandidateSource
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.features.sessions import owned
from endcap.features.stats import ItemStats

if TYPE_CHECKING:
    from endcap.app.runtime import Shop

MIN_EVENTS = 20


def learnable(log: pl.LazyFrame, workspace: Path) -> pl.DataFrame:
    """The events of a log that count as success. DataError where they are too few to learn from."""
    bought = successes(log)
    if bought.height < MIN_EVENTS:
        raise DataError(
            f"There are {bought.height} purchases, or acts where purchases are hardly logged; "
            f"{MIN_EVENTS} is the least to learn from.",
            where=str(workspace),
            next_step=f"Ingest more: endcap ingest EVENTS --shop {workspace}",
        )
    return bought


class Run:
    """What its stages share. seconds: by stage. notes: sentences on what was decided. left_out: sources that the
    release does without."""

    def __init__(self, shop: Shop, progress: Progress) -> None:
        self.shop, self.config, self._progress = shop, shop.config, progress
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.left_out: set[str] = set()
        self._stage, self._since = "", time.monotonic()

    def stage(self, name: str, share: float = 0.0) -> None:
        """Tell the progress, and book the time since the last stage began."""
        if name != self._stage:
            if self._stage:
                now = time.monotonic()
                self.seconds[self._stage] = self.seconds.get(self._stage, 0) + now - self._since
            self._stage, self._since = name, time.monotonic()
        if name:
            self._progress(name, share)

    def share(self, stage: str, place: int, parts: int, share: float) -> None:
        """Part `place`, from 0, of a stage is done to a share."""
        self.stage(stage, (place + share) / parts)

    def read(self) -> None:
        """The log of one moment. DataError where there is nothing to learn from."""
        self.stage("read the log")
        store = self.shop.store
        self.seq, self.fingerprint = store.last_seq(), store.fingerprint()
        # one moment of the log, however much is recorded meanwhile
        log = owned(store.events().filter(pl.col("seq") <= self.seq))
        if self.config.train.split == "leave_one_out":
            log = one_by_one(log)
        self.bought = learnable(log, self.shop.folder)
        ids = log.select(pl.col("item_id").drop_nulls().unique()).collect().to_series().to_list()
        self.items_version = store.items_version()
        self.table = ItemTable.build(store.items(), ids)
        self.histories = Histories.build(log, self.table.ids)

    def leave_out_idle(self) -> None:
        wanted = self.config.train.sources
        found = {source: why for source, why in idle(self.histories, self.table).items() if source in wanted}
        if len(found) < len(wanted):  # a shop that asked for nothing else gets what it asked for
            self.left_out |= found.keys()
            self.notes += [f"The source {source} is left out: {why}." for source, why in found.items()]

    def reads_content(self, sources: Sequence[str]) -> bool:
        """Whether any of the sources reads content vectors; where none does, a note on what search then lacks."""
        read_by = {"content", "sequence", *(EDGES if self.config.transitions.borrowed else ())}
        found = bool(read_by.intersection(sources))
        if not found and any(holds(self.table, name, self.config) for name in self.config.content.modalities):
            self.notes.append(
                "Search goes by words alone, and not by picture, because no source reads what items are: name "
                "`content` among [train] sources."
            )
        return found

    def assemble(self, past: Histories, until_ms: int, lasting: Sequence[CandidateSource]) -> Fitted:
        """Everything fitted on events before a moment, the sources in the configured order."""
        fresh = fit_fresh(past, self.table, until_ms, self.config)
        order = self.config.train.sources
        used = [source for source in (*fresh, *lasting) if source.name not in self.left_out]
        sources = sorted(used, key=lambda source: order.index(source.name))
        return Fitted(self.table, ItemStats.build(past, len(self.table), until_ms), tuple(sources), until_ms)

    def about(self) -> dict[str, Any]:
        """What a release's manifest says of its data."""
        return {
            "fingerprint": self.fingerprint,
            "seq": self.seq,
            "events": len(self.histories.events),
            "users": len(self.histories),
            "items": len(self.table),
            "items_version": self.items_version,
        }
