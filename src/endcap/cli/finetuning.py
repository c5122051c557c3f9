"""Tuning pretrained models from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from endcap.cli.terminal import JsonOption, print_json, print_table, progress, stdout
from endcap.core.errors import CallerError

if TYPE_CHECKING:
    from polars import DataFrame

    from endcap.app.finetune import Run
    from endcap.app.finetune_settings import FinetuneConfig
    from endcap.app.finetune_start import Source

DataArgument = Annotated[
    Path | None, typer.Argument(help="Table of examples: .csv, .jsonl or .parquet; or none, with --shop.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings in TOML; see docs/finetuning.md.", exists=True)
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as train.lr=1e-4; repeatable.")
]
TaskOption = Annotated[str | None, typer.Option(help="What is learned, such as classification, pairs or interest.")]
MethodOption = Annotated[str | None, typer.Option(help="full, frozen, lora, adalora, prefix, ia3 or adapter.")]
BaseOption = Annotated[
    str | None, typer.Option(help="Packaged model, folder, Hugging Face name, or an earlier run's folder.")
]
EpochsOption = Annotated[int | None, typer.Option(min=1, help="Passes over the training part, at most.")]
FromShop = Annotated[
    Path | None, typer.Option("--shop", "-s", help="Workspace whose log and catalogue give the examples.")
]


def finetune(
    run: Annotated[Path, typer.Option("--run", "-r", help="Folder to write the run into.")],
    data: DataArgument = None,
    task: TaskOption = None,
    method: MethodOption = None,
    base: BaseOption = None,
    epochs: EpochsOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    shop: FromShop = None,
    as_json: JsonOption = False,
) -> None:
    """Tune a pretrained text model for a task of yours, measure it, and write it with a model card."""
    from endcap.app.finetune import finetune as tune

    chosen = asked_for(config, settings, task, method, base, epochs)
    examples = examples_from(data, shop, chosen)
    with progress() as tell:
        done = tune(examples, chosen, run, tell=tell)
    if not done.first:
        return
    if as_json:
        print_json({"run": str(run.resolve()), "metrics": done.metrics, **done.facts})
    else:
        print_run(done)


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", exists=True, file_okay=False)],
    texts: Annotated[
        list[str], typer.Argument(help="One text or several; for a matching, what the shopper looked at.")
    ],
    candidate: Annotated[
        list[str] | None, typer.Option("--candidate", help="For a matching: a text to put into order; repeatable.")
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option("--other", help="For a model of pairs of texts: the second text, once for each first one."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a tuned model."""
    from endcap.app.finetune_use import answers

    found = answers(run, texts, candidate or [], other or [])
    if as_json:
        print_json(found)
        return
    print_table(
        "", ("text", "answer", "score"), [(a.text, a.answer or "-", f"{a.score:.3f}") for a in found], ("score",)
    )


def asked_for(
    config: Path | None,
    settings: list[str] | None,
    task: str | None,
    method: str | None,
    base: str | None,
    epochs: int | None,
) -> FinetuneConfig:
    """The file's settings, with the options' over them, and what was set by key over both."""
    from endcap.app.finetune_settings import settings_of

    named = {"task.kind": task, "method.kind": method, "base.name": base, "train.epochs": epochs}
    options = [f"{key}={value}" for key, value in named.items() if value is not None]
    return settings_of(config, [*options, *(settings or [])])


def examples_from(data: Path | None, shop: Path | None, config: FinetuneConfig) -> Path | Source:
    """The table's path, or a shop, of which a table is made where the run does not hold one yet."""
    if (data is None) == (shop is None):
        raise CallerError(
            "Tuning needs one source of examples.", next_step="Name a table of them, or a workspace after --shop."
        )
    if data is not None:
        return data
    assert shop is not None
    return _of_shop(shop, config)


def _of_shop(shop: Path, config: FinetuneConfig) -> Source:
    from endcap.app.finetune_data import examples_of
    from endcap.app.finetune_start import Source
    from endcap.app.runtime import Shop

    def make() -> DataFrame:
        with Shop.open(shop, read_only=True) as opened:
            return examples_of(opened, config)

    return Source(str(shop.resolve()), make)


def print_run(done: Run) -> None:
    names: list[str] = []
    for found in done.metrics.values():
        names += [name for name in found if name not in names]
    rows = [(part, *(f"{found[n]:.4f}" if n in found else "" for n in names)) for part, found in done.metrics.items()]
    print_table("Measured", ("part", *names), rows, names)
    stdout().print(
        f"{done.facts['learns']:,} of {done.facts['parameters']:,} parameters learned, {done.facts['seconds']:,.0f} s.",
        soft_wrap=True,
    )
    for note in done.facts["notes"]:
        stdout().print(note, soft_wrap=True, markup=False)
    refused = done.facts["rows"]["refused"]
    if refused:
        stdout().print(f"{refused:,} rows were left out: {done.folder / 'refused.jsonl'}", soft_wrap=True)
    stdout().print(f"The run, with its model card, is in {done.folder}.", soft_wrap=True)
    if done.facts.get("encoder"):
        stdout().print(
            "To let it read the catalogue, under [text] in endcap.toml:\n"
            f'model = "{(done.folder / "encoder").resolve()}"',
            soft_wrap=True,
            markup=False,
        )
