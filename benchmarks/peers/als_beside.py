"""Running the plain ALS service on a shop's data, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.peers.run import HERE, ROOT, environment
from benchmarks.scale_shop import ScaleShop
from benchmarks.served import LOCAL, Served, start
from endcap.web.server import free_port

SCRIPT, FITTED = "benchmarks.peers.als_service", "item_factors.npy"


@contextmanager
def als_served(shop: ScaleShop) -> Iterator[Served]:
    """Fitted, where it is not yet, and ready."""
    python, folder = str(environment(HERE / "als_service.txt")), shop.folder / "als"
    # other packages on the path could be loaded instead of those that were pinned
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"PYTHONNOUSERSITE": "1"}
    if not (folder / FITTED).exists():
        _write(shop, folder)
        subprocess.run([python, "-m", SCRIPT, "fit", str(folder)], check=True, cwd=ROOT, env=env)
    (folder / "events.sqlite").unlink(missing_ok=True)
    port = free_port(LOCAL, 0)
    server = start([python, "-m", SCRIPT, "serve", str(folder), str(port)], port, "/health/ready", env)
    try:
        yield server
    finally:
        server.stop()


def _write(shop: ScaleShop, folder: Path) -> None:
    """What the service reads: every act, and the catalogue's titles."""
    folder.mkdir(exist_ok=True)
    acts, items = shop.events().select("user_id", "item_id"), shop.items().select("item_id", "title")
    users = acts["user_id"].unique(maintain_order=True)
    numbered = acts.select(
        pl.col("user_id").cast(pl.Enum(users)).to_physical(),
        pl.col("item_id").cast(pl.Enum(items["item_id"])).to_physical(),
    )
    np.save(folder / "pairs.npy", numbered.to_numpy().astype(np.int32))
    for name, values in (("user_ids", users), ("item_ids", items["item_id"]), ("titles", items["title"])):
        (folder / f"{name}.txt").write_text("\n".join(value.replace("\n", " ") for value in values), encoding="utf-8")
