"""The search for good settings of a tuning, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from endcap.cli.finetuning import ConfigOption, DataArgument, FromShop, SetOption, examples_from, print_run
from endcap.cli.terminal import JsonOption, print_json, print_table, progress, stdout

if TYPE_CHECKING:
    from endcap.app.finetune_search import Found


def finetune_search(
    run: Annotated[Path, typer.Option("--run", "-r", help="Folder of the search; one that is there is gone on with.")],
    data: DataArgument = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=RANGE",
            help="What may vary: train.lr=1e-5..1e-3:log, method.rank=4|8|16; repeatable. Default: the learning rate.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try, in all sittings together.")] = 20,
    prune: Annotated[bool, typer.Option("--prune/--no-prune", help="End trials that are behind early.")] = True,
    config: ConfigOption = None,
    settings: SetOption = None,
    shop: FromShop = None,
    as_json: JsonOption = False,
) -> None:
    """Find good settings by validation, tune once more with the best, and measure that on the test part."""
    from endcap.app.finetune_search import SearchConfig, search, space_of
    from endcap.app.finetune_settings import settings_of

    base = settings_of(config, settings or [])
    chosen = SearchConfig(trials=trials, prune=prune, **({"space": space_of(space)} if space else {}))
    examples = examples_from(data, shop, base)
    with progress() as tell:
        found = search(examples, base.model_dump(mode="json"), chosen, run, tell=tell)
    if as_json:
        print_json(
            {"settings": found.settings, "importances": found.importances, "values": found.values}
            | {"metrics": found.best.metrics, "run": str(found.best.folder.resolve())}
        )
    else:
        _print(found, run)


def _print(found: Found, folder: Path) -> None:
    rows = [
        (key, f"{value:.3g}" if isinstance(value, float) else str(value), f"{found.importances.get(key, 0):.2f}")
        for key, value in found.settings.items()
    ]
    print_table("Best settings", ("setting", "value", "importance"), rows, ("value", "importance"))
    ended = sum(value is None for value in found.values)
    stdout().print(
        f"{len(found.values)} trials, {ended} of them ended early. See {folder / 'search.svg'}.", soft_wrap=True
    )
    print_run(found.best)
