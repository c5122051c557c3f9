"""Which release answers. These commands take effect in a running server at its next answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endcap.cli.terminal import HERE, JsonOption, ShopOption, print_json, print_table, stdout

if TYPE_CHECKING:
    from endcap.core.artifacts import Manifest


def publish(
    release: Annotated[str | None, typer.Argument(help="A release; the newest where it is missing.")] = None,
    shop: ShopOption = HERE,
) -> None:
    """Make a release the one that answers."""
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        stdout().print(f"Release {opened.publish(release)} is published.")


def rollback(shop: ShopOption = HERE) -> None:
    """Go back to the release that was published before."""
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        stdout().print(f"Release {opened.rollback()} is published again.")


def releases(shop: ShopOption = HERE, as_json: JsonOption = False) -> None:
    """List the releases, oldest first, with what training measured."""
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        found, current = opened.releases.list(), opened.releases.current()
    if as_json:
        print_json([_entry(manifest, current) for manifest in found])
        return
    if not found:
        stdout().print(f"There is no release yet. Next: endcap train --shop {shop}", soft_wrap=True)
        return
    tasks = list(dict.fromkeys(task for manifest in found for task in _ndcg(manifest)))
    header = ["release", "created (UTC)", "published", "events", *(f"ndcg@10 {task}" for task in tasks)]
    print_table("", header, [_row(manifest, current, tasks) for manifest in found], header[3:])


def _entry(manifest: Manifest, current: str | None) -> dict[str, Any]:
    return {
        "release": manifest.release_id,
        "created_ms": manifest.created_ms,
        "published": manifest.release_id == current,
        "data": manifest.data,
        "metrics": manifest.metrics,
    }


def _row(manifest: Manifest, current: str | None, tasks: list[str]) -> list[str]:
    created = datetime.fromtimestamp(manifest.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    measured = _ndcg(manifest)
    events = manifest.data.get("events")
    return [
        manifest.release_id,
        created,
        "yes" if manifest.release_id == current else "",
        f"{events:,}" if isinstance(events, int) else "",
        *(f"{measured[task]:.4f}" if task in measured else "" for task in tasks),
    ]


def _ndcg(manifest: Manifest) -> dict[str, float]:
    """task -> what the release reached on it."""
    tasks = [name.removeprefix("queries_") for name in manifest.metrics if name.startswith("queries_")]
    return {task: manifest.metrics[f"ndcg@10_{task}"] for task in tasks if f"ndcg@10_{task}" in manifest.metrics}
