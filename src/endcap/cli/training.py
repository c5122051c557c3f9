"""Training, and what it measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endcap.cli.evaluation import evaluation_markdown, print_evaluation
from endcap.cli.terminal import HERE, JsonOption, MarkdownOption, ShopOption, print_json, print_table, progress, stdout

if TYPE_CHECKING:
    from endcap.app.train import Trained


def train(
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Measure against baselines on what came last.")
    ] = True,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Make the new release the one that answers.")
    ] = True,
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
    markdown: MarkdownOption = None,
) -> None:
    """Learn from everything recorded and write a release. A running server goes on, and takes the release up."""
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        with progress() as tell:
            trained = opened.train(evaluate=evaluate, publish=publish, progress=tell)
        is_published = opened.releases.current() == trained.manifest.release_id
    if markdown is not None and trained.comparison is not None:
        markdown.write_text(trained.comparison.to_markdown(), encoding="utf-8")
    if as_json:
        print_json(_summary(trained, is_published))
    else:
        print_trained(trained, is_published, shop)


def refit(
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Make the new release the one that answers.")
    ] = True,
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Bring the published release up to date with the log, in a fraction of the time that training takes."""
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        with progress() as tell:
            done = opened.refit(publish=publish, progress=tell)
        is_published = opened.releases.current() == done.manifest.release_id
    if as_json:
        print_json(
            {
                "release": done.manifest.release_id,
                "published": is_published,
                "refit_of": done.before,
                "new_events": done.new_events,
                "notes": done.notes,
                "seconds": done.seconds,
            }
        )
        return
    for note in done.notes:
        stdout().print(f"Note: {note}", markup=False)
    _print_seconds(done.seconds)
    stdout().print(f"{done.new_events:,} events more than in release {done.before}.", soft_wrap=True)
    _print_release(done.manifest.release_id, is_published, shop)


def evaluate(
    release: Annotated[str | None, typer.Argument(help="A release; the published one where it is missing.")] = None,
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
    markdown: MarkdownOption = None,
) -> None:
    """Show what training measured for a release: every model beside every baseline, with intervals."""
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        stored = opened.evaluation(release or opened.releases.current())
    if markdown is not None:
        markdown.write_text(evaluation_markdown(stored), encoding="utf-8")
    if as_json:
        print_json(stored)
    else:
        print_evaluation(stored)


def print_trained(trained: Trained, is_published: bool, shop: Path) -> None:
    if trained.comparison is not None:
        print_evaluation(trained.comparison.to_dict())
    for note in trained.notes:
        stdout().print(f"Note: {note}", markup=False)
    _print_seconds(trained.seconds)
    _print_release(trained.manifest.release_id, is_published, shop)


def _print_seconds(seconds: dict[str, float]) -> None:
    rows = [(stage, f"{taken:.1f}") for stage, taken in seconds.items()]
    print_table("Time", ("stage", "seconds"), [*rows, ("all", f"{sum(seconds.values()):.1f}")], ("seconds",))


def _print_release(release: str, is_published: bool, shop: Path) -> None:
    done = "is published." if is_published else f"is written. Next: endcap publish {release} --shop {shop}"
    stdout().print(f"Release {release} {done}", soft_wrap=True)


def _summary(trained: Trained, is_published: bool) -> dict[str, Any]:
    return {
        "release": trained.manifest.release_id,
        "published": is_published,
        "notes": trained.notes,
        "seconds": trained.seconds,
        "evaluation": trained.comparison.to_dict() if trained.comparison is not None else None,
    }
