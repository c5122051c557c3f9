"""The commands, and how an error becomes a sentence and an exit code.

Nothing here or in the modules it imports loads numpy: `serve` has to say how many threads it may use before that.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer
from rich.text import Text

from endcap import __version__
from endcap.app.audit import acting, system_user
from endcap.cli import (
    benchmarking,
    demo,
    doctoring,
    finetuning,
    ingesting,
    keeping,
    keys,
    pretraining,
    recommending,
    releasing,
    searching,
    serving,
    training,
    watching,
)
from endcap.cli.terminal import stderr, stdout
from endcap.core.errors import EndcapError, disk_error

INTERRUPTED = 130  # what a command that Ctrl-C ended exits with

app = typer.Typer(
    name="endcap",
    help="A shop's catalogue and behaviour logs, turned into live, personalised recommendations.",
    epilog="Begin with: endcap demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """The entry point. Exit codes: 0 done, 1 ours, 2 the command is wrong, 3 the data are wrong, 130 Ctrl-C."""
    # Threads that spin while they wait take the time of those that work; it must be said before OpenMP loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:
            stderr().print("Stopped. Run it again; what was recorded is kept.")
        _end_one_of_several(stopped.code)
        raise
    except (EndcapError, OSError) as error:
        said = error if isinstance(error, EndcapError) else disk_error(error)
        if said is None:
            raise
        stderr().print(Text(str(said), style="red"), soft_wrap=True)
        _end_one_of_several(said.exit_code)
        raise SystemExit(said.exit_code) from None


def _end_one_of_several(code: str | int | None) -> None:
    """Where `torchrun` started this process beside others: end it here. Taking its interpreter down, while threads of
    PyTorch's gloo still run, crashes one in some dozens of runs, which `torchrun` then calls failed."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or "torch" not in sys.modules or isinstance(code, str):
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _show_version(wanted: bool) -> None:
    if wanted:
        stdout().print(f"endcap {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    context.with_resource(acting(f"cli:{system_user()}"))


app.command(epilog="Example: endcap init myshop")(ingesting.init)
app.command(epilog="Example: endcap ingest events.csv --items items.jsonl --shop myshop")(ingesting.ingest)
app.command(epilog="Example: endcap train --shop myshop --markdown evaluation.md")(training.train)
app.command(epilog="Example: endcap refit --shop myshop")(training.refit)
app.command(epilog="Example: endcap pretrain --shop bigshop --out weights")(pretraining.pretrain)
app.command(epilog="Example: endcap finetune intents.csv --task classification --method lora --run runs/intents")(
    finetuning.finetune
)
app.command(
    "finetune-search",
    epilog="Example: endcap finetune-search intents.csv --space train.lr=1e-5..1e-3:log --trials 20 --run runs/search",
)(searching.finetune_search)
app.command(epilog='Example: endcap predict runs/intents "where is my order"')(finetuning.predict)
app.command(epilog="Example: endcap evaluate --shop myshop")(training.evaluate)
app.command(epilog="Example: endcap publish 20260101T120000-3fa9c1 --shop myshop")(releasing.publish)
app.command(epilog="Example: endcap rollback --shop myshop")(releasing.rollback)
app.command(epilog="Example: endcap releases --shop myshop")(releasing.releases)
app.command(epilog="Example: endcap backup backups/monday --shop myshop")(keeping.backup)
app.command(epilog="Example: endcap restore backups/monday --shop mended")(keeping.restore)
app.command(epilog="Example: endcap verify --shop myshop")(keeping.verify)
app.command(epilog="Example: endcap recommend --user 42 -n 5 --placement cart --cart 1082185,995242 --shop myshop")(
    recommending.recommend
)
app.command(epilog='Example: endcap search "oat drink" --user 42 --shop myshop')(recommending.search)
app.command(epilog="Example: endcap serve --shop myshop --port 8765")(serving.serve)
app.command(epilog="Example: endcap effects --days 7 --shop myshop")(watching.effects)
app.command(epilog="Example: endcap doctor --shop myshop --url http://127.0.0.1:8765")(doctoring.doctor)
app.add_typer(keys.keys)
app.command(epilog="Example: endcap audit --shop myshop")(keys.audit)
app.command(epilog="Example: endcap demo --no-serve")(demo.demo)
app.command(epilog="Example: endcap benchmark amazon-beauty --seeds 3 --markdown beauty.md")(benchmarking.benchmark)
