"""The options that commands share, where output goes, and how work in progress is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from endcap.core.errors import CallerError

WIDE = 160


def _can_be_written(path: Path | None) -> Path | None:
    """The path as it is. CallerError, before anything is done, where no file can be written there."""
    if path is not None and path.is_dir():
        raise CallerError("This is a folder.", where=str(path), next_step="Name a file in it after --markdown.")
    if path is not None and not path.parent.is_dir():
        raise CallerError(
            "There is no such folder to write the Markdown into.",
            where=str(path.parent),
            next_step="Make it, or name another file after --markdown.",
        )
    return path


ShopOption = Annotated[
    Path, typer.Option("--shop", "-s", envvar="ENDCAP_SHOP", help="Folder of the workspace.", show_default="here")
]
ShopsOption = Annotated[
    list[Path],
    typer.Option(
        "--shop", "-s", envvar="ENDCAP_SHOP", help="Folder of a workspace; may be repeated.", show_default="here"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on the standard output, and nothing else there.")]
MarkdownOption = Annotated[
    Path | None,
    typer.Option("--markdown", metavar="FILE", help="Also write the comparison as Markdown.", callback=_can_be_written),
]
PortOption = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port, 0 for a free one; default from endcap.toml.")
]
HERE = Path()
HERE_ALONE = [HERE]


def stdout() -> Console:
    """For results. Wide where no terminal sets the width, so that tables are whole in files and pipes."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(WIDE, console.width))


def stderr() -> Console:
    """For progress and errors, so that they never mix with results."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """right: the columns whose cells stand at the right. Cells are text, whatever signs they hold."""
    table = Table(title=Text(title) if title else None, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(Text(column), justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    stdout().print(table)


@contextmanager
def progress() -> Iterator[Callable[..., None]]:
    """Shows each stage as it comes: call with the stage's name, its share, 0 to 1, and perhaps how it goes. Bars on a
    terminal, which change in place; elsewhere a line as a stage begins and ends."""
    console = stderr()
    with _Bars(console) if console.is_terminal else _Lines(console) as stages:
        yield stages.tell


class _Bars:
    """A bar for each stage, with the time it took."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        self._bars = Progress(*columns, TimeElapsedColumn(), console=console)
        self._stage, self._task = "", TaskID(-1)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()

    def tell(self, stage: str, share: float, note: str = "") -> None:
        if stage != self._stage:
            self._finish()
            self._stage, self._task = stage, self._bars.add_task(stage, total=None)
        # A stage that cannot say how far it is has a bar that moves without end.
        described = f"{stage}: {note}" if note else stage
        self._bars.update(self._task, total=1.0 if share else None, completed=share, description=described)

    def _finish(self) -> None:
        if self._stage:
            self._bars.update(self._task, total=1.0, completed=1.0)


class _Lines:
    """For files and pipes."""

    def __init__(self, console: Console) -> None:
        self._console, self._stage, self._note, self._since_s = console, "", "", time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()

    def tell(self, stage: str, _share: float, note: str = "") -> None:
        if stage != self._stage:
            self._finish()
            self._stage, self._since_s = stage, time.monotonic()
            self._say(f"{stage} ...")
        self._note = note

    def _finish(self) -> None:
        if self._stage:
            note = f"{self._note}, " if self._note else ""
            self._say(f"{self._stage}: {note}{time.monotonic() - self._since_s:.1f} s")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
