"""The search for good settings of a tuning, from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from endcap.cli.finetuning import (
    BaseOption,
    ConfigOption,
    DataArgument,
    EpochsOption,
    FromShop,
    MethodOption,
    SetOption,
    TaskOption,
    asked_for,
    examples_from,
    print_run,
)
from endcap.cli.terminal import JsonOption, print_json, print_table, progress, stdout
from endcap.core.errors import CallerError

if TYPE_CHECKING:
    from endcap.app.finetune_search import Found, Range, Value


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
    task: TaskOption = None,
    method: MethodOption = None,
    base: BaseOption = None,
    epochs: EpochsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    shop: FromShop = None,
    as_json: JsonOption = False,
) -> None:
    """Find good settings by validation, tune once more with the best, and measure that on the test part."""
    from endcap.app.finetune_search import SearchConfig, search

    chosen = asked_for(config, settings, task, method, base, epochs)
    looked = SearchConfig(trials=trials, prune=prune, **({"space": space_of(space)} if space else {}))
    examples = examples_from(data, shop, chosen)
    with progress() as tell:
        found = search(examples, chosen.model_dump(mode="json"), looked, run, tell=tell)
    if as_json:
        print_json(
            {"settings": found.settings, "importances": found.importances, "values": found.values}
            | {"failed": found.failed, "metrics": found.best.metrics, "run": str(found.best.folder.resolve())}
        )
    else:
        _print(found, run)


def space_of(texts: Sequence[str]) -> dict[str, Range]:
    """From "key=low..high", "key=low..high:log" and "key=one|other". CallerError for anything else."""
    from endcap.app.finetune_search import Range

    space = {}
    for text in texts:
        key, _, said = text.partition("=")
        numbers, scaled, scale = said.partition(":")
        try:
            if not said:
                raise ValueError("nothing is said of it")
            values = [_read(part) for part in (numbers.split("..") if ".." in numbers else said.split("|"))]
            if ".." in numbers:
                if scaled and scale != "log":
                    raise ValueError("there is no other scale than log")
                low, high = values
                space[key.strip()] = Range.model_validate({"low": low, "high": high, "log": bool(scaled)})
            else:
                space[key.strip()] = Range(choices=tuple(values))
        except ValueError as error:
            raise CallerError(
                f"{text!r} is no range of a setting.",
                where="--space",
                next_step="Write key=low..high, key=low..high:log or key=one|other.",
            ) from error
    return space


def _read(text: str) -> Value:
    """A number, true or false where it is one, else a word."""
    try:
        value: Value = msgspec.json.decode(text.strip(), type=str | int | float | bool)
    except msgspec.DecodeError:
        return text.strip()
    return value


def _print(found: Found, folder: Path) -> None:
    rows = [
        (key, f"{value:.3g}" if isinstance(value, float) else str(value), f"{found.importances.get(key, 0):.2f}")
        for key, value in found.settings.items()
    ]
    print_table("Best settings", ("setting", "value", "importance"), rows, ("value", "importance"))
    early = sum(value is None for value in found.values) - len(found.failed)
    told = f"{len(found.values)} trials, of which {early} were ended early and {len(found.failed)} failed."
    stdout().print(f"{told} See {folder / 'search.svg'}.", soft_wrap=True)
    for number, reason in found.failed.items():
        stdout().print(f"Trial {number} failed: {reason}", soft_wrap=True, markup=False)
    print_run(found.best)
