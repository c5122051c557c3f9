"""Running the HTTP server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from endcap.cli.terminal import HERE, PortOption, ShopOption, stdout

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def serve(
    host: Annotated[str | None, typer.Option(help="Address of this machine; default from endcap.toml.")] = None,
    port: PortOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer; more than one needs the store on Postgres.")
    ] = None,
    shop: ShopOption = HERE,
) -> None:
    """Answer over HTTP until Ctrl-C. On SQLite one process records: a second `serve` or `ingest` is refused."""
    # Requests run side by side already; threads inside one answer would only get in each other's way.
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as seen:  # a folder that is no workspace is an error here
        wanted = workers or seen.config.serve.workers
    if wanted > 1:
        from endcap.web.workers import serve_workers

        serve_workers(shop, wanted, host, port, _announce(shop))
    else:
        from endcap.web.server import serve as answer

        with Shop.open(shop) as opened:
            answer(opened, host, port, _announce(shop))
    stdout().print("Stopped.")


def _announce(folder: Path) -> Callable[[str], None]:
    def announce(url: str) -> None:
        stdout().print(f"Serving {folder} at {url} (routes: {url}/docs). Ctrl-C stops it.", soft_wrap=True)

    return announce
