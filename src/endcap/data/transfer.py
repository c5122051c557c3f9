"""From one store to another, whatever keeps them: how a backup of Postgres is written, and how a shop grows onto it."""

from __future__ import annotations

import polars as pl

from endcap.core.errors import CallerError, ServiceError
from endcap.data.store import Store

ROWS = 500_000


def transfer(source: Store, target: Store) -> None:
    """Copy catalogue, users, refused rows and every event recorded until now into an empty store.

    Events keep their seqs, so that releases which were made from the source go on from where they stand. CallerError
    where the target is not empty.
    """
    counts = target.counts()
    if counts.events or counts.items or counts.users:
        raise CallerError(
            f"The store holds {counts.events:,} events and {counts.items:,} items; a copy goes into an empty one.",
            where="restore",
            next_step="Choose another workspace, or another schema of the database.",
        )
    until = source.last_seq()
    target.begin_items_at(source.items_version())  # so that every row is newer than what any release was made of
    target.put_items(source.items())
    target.put_users(source.users())
    for part in source.quarantined().collect().iter_slices(ROWS):
        target.quarantine(part)
    seq = 0
    while seq < until:
        part = source.events(seq).filter(pl.col("seq") <= until).head(ROWS).collect()
        seq = int(part["seq"][-1])
        appended = target.append_table(part.drop("seq"))
        if appended.n_duplicates or appended.last_seq != seq:
            raise ServiceError(
                f"After {seq:,} events the copy stands at {appended.last_seq:,}.",
                where="restore",
                next_step="Nothing else may write to the copy; empty it and begin anew.",
            )
