"""Running the HTTP server."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from endcap.cli.terminal import HERE_ALONE, PortOption, ShopsOption, stdout

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def serve(
    host: Annotated[str | None, typer.Option(help="Address of this machine; default from endcap.toml.")] = None,
    port: PortOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer; more than one needs the store on Postgres.")
    ] = None,
    shop: ShopsOption = HERE_ALONE,
) -> None:
    """Answer over HTTP until Ctrl-C. On SQLite one process records: a second `serve` or `ingest` is refused.

    Several shops in one process: --shop a --shop b. Each needs API keys, and a key reaches its own shop only.
    """
    # Requests run side by side already; threads inside one answer would only get in each other's way.
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    from endcap.app.logs import configured
    from endcap.app.runtime import Shop
    from endcap.app.watching import shared_counts

    wanted = workers
    for folder in reversed(shop):  # the settings of how to serve are those of the first
        with Shop.open(folder, read_only=True) as seen:  # a folder that is no workspace is an error here
            wanted, log = workers or seen.config.serve.workers, seen.config.log
    if wanted and wanted > 1:
        with shared_counts(), configured(log):
            from endcap.web.workers import serve_workers

            serve_workers(shop, wanted, host, port, _announce(shop))
    else:
        from endcap.web.server import serve as answer

        with ExitStack() as opened:
            first, *beside = [opened.enter_context(Shop.open(folder)) for folder in shop]
            opened.enter_context(configured(first.config.log))
            answer(first, host, port, _announce(shop), beside=beside)
    stdout().print("Stopped.")


def _announce(folders: Sequence[Path]) -> Callable[[str], None]:
    def announce(url: str) -> None:
        names = ", ".join(map(str, folders))
        stdout().print(f"Serving {names} at {url} (routes: {url}/docs). Ctrl-C stops it.", soft_wrap=True)

    return announce
