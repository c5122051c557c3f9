"""Making a workspace and filling it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from endcap.cli.terminal import HERE, JsonOption, ShopOption, print_json, print_table, progress, stdout
from endcap.core.errors import CallerError

if TYPE_CHECKING:
    from endcap.app.ingest import Ingested
    from endcap.app.runtime import Shop

QUARANTINE = Path("store", "quarantine")


def init(
    folder: Annotated[Path | None, typer.Argument(help="Folder to make; --shop where it is missing.")] = None,
    shop: ShopOption = HERE,
) -> None:
    """Make a workspace: a folder with endcap.toml and an empty store. An existing one is left as it is."""
    from endcap.app.runtime import Shop

    place = Shop.init(folder or shop)
    stdout().print(f"The workspace is {place.resolve()}. Next: endcap ingest EVENTS --shop {place}", soft_wrap=True)


def ingest(
    events: Annotated[
        Path | None, typer.Argument(help="Events: CSV, JSON lines or Parquet.", exists=True, dir_okay=False)
    ] = None,
    items: Annotated[Path | None, typer.Option(help="The catalogue.", exists=True, dir_okay=False)] = None,
    users: Annotated[Path | None, typer.Option(help="What is known of shoppers.", exists=True, dir_okay=False)] = None,
    dataset: Annotated[str | None, typer.Option(help="A data set by name instead, such as complete-journey.")] = None,
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Read, check, clean and record files. What is refused is kept in quarantine, counted by rule."""
    from endcap.app.runtime import Shop

    if dataset is not None and (events, items, users) != (None, None, None):
        raise CallerError("Files and a data set are named at once.", where="ingest", next_step="Name one of the two.")
    with Shop.open(shop) as opened:
        with progress() as tell:
            if dataset is not None:
                ingested = opened.ingest_dataset(dataset, progress=tell)
            else:
                ingested = opened.ingest(events, items=items, users=users, progress=tell)
        if as_json:
            print_json(ingested)
        else:
            print_ingested(opened, ingested)
        for report in ingested.reports():
            if failure := report.failure(opened.folder / QUARANTINE):
                raise failure


def print_ingested(shop: Shop, ingested: Ingested) -> None:
    """A table for each report, and where the refused rows are."""
    reports = ingested.reports()
    for report in reports:
        print_table(report.table, ("", ""), report.lines())
    refused = sum(sum(report.quarantined.values()) for report in reports)
    if refused:
        stdout().print(f"{refused:,} rows are in quarantine, with reasons: {shop.folder / QUARANTINE}", soft_wrap=True)
    counts = shop.store.counts()
    stdout().print(f"The store holds {counts.events:,} events and {counts.items:,} items.")
    if not any(report.failure(shop.folder) for report in reports):
        stdout().print(f"Next: endcap train --shop {shop.folder}", soft_wrap=True)
        if shop.releases.current():
            stdout().print(
                f"Or, sooner, the release with what is new: endcap refit --shop {shop.folder}", soft_wrap=True
            )
