"""Measuring the product on a folder of sequences, as papers do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from endcap.cli.evaluation import print_evaluation
from endcap.cli.terminal import JsonOption, MarkdownOption, print_json, print_table, progress, stdout


def benchmark(
    folder: Annotated[
        Path, typer.Argument(help="Holds sequences.txt (`user item item ...` a line) and perhaps items.jsonl.")
    ],
    seeds: Annotated[int, typer.Option(help="How many times to train, each from the files.")] = 1,
    as_json: JsonOption = False,
    markdown: MarkdownOption = None,
) -> None:
    """Leave-one-out over all items: train as `endcap train` does, measure against every source alone."""
    from endcap.app.benchmark import benchmark as run

    with progress() as tell:
        found = run(folder, seeds=seeds, progress=tell)
    if markdown is not None:
        markdown.write_text(found.comparison.to_markdown(), encoding="utf-8")
    if as_json:
        print_json({"figures": found.figures, "notes": found.notes, "seconds": found.seconds})
        return
    print_evaluation(found.comparison.to_dict())
    for note in found.notes:
        stdout().print(f"Note: {note}", markup=False)
    rows = [(stage, f"{seconds:.1f}") for stage, seconds in found.seconds.items()]
    print_table("Time of the first seed", ("stage", "seconds"), rows, ("seconds",))
