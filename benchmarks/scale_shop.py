"""Shops to measure a server by: 12 thousand, 100 thousand and a million items, trained by the product itself and kept.

`python -m benchmarks.scale_shop 100k [--root FOLDER] [--data FOLDER]` makes the shop, unless it is there already, and
prints its folder:

    events.parquet  items.parquet    what was ingested
    shop/                            the workspace, with a published release
    made.json                        seconds and memory by stage

A shop of 12k is Amazon Beauty where `--data` (or ENDCAP_DATA) holds it, and made up otherwise; the others are made up
(`benchmarks.scale_data`). The folder's name holds a digest of the settings, so that other settings make another shop.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

import endcap
from benchmarks.scale_data import Size, made
from endcap import Shop
from endcap.data.datasets import amazon_folder

FORMAT = 6  # counted up when what is made changes, or what a release of it holds
SIZES = {
    "mini": Size(items=2_000, users=1_500, events=18_000, qualifiers=1),
    "12k": Size(items=12_000, users=22_000, events=200_000, qualifiers=1),
    "100k": Size(items=100_000, users=50_000, events=600_000, qualifiers=3),
    "1m": Size(items=1_000_000, users=200_000, events=3_000_000, qualifiers=10),
}
BEAUTY = "amazon-beauty"
LEARNING = {
    "mini": {"examples": 600, "epochs": 1, "seconds": 20},
    "12k": {"examples": 4000, "epochs": 2, "seconds": 90},
    "100k": {"examples": 3000, "epochs": 2, "seconds": 120},
    "1m": {"examples": 6000, "epochs": 1, "seconds": 180},
}
# Every source, and none taken away: a server is measured with all that a shop may have.
SETTINGS = """
[train]
threads = 1
split = "{split}"
optional = []
moments = 1
examples = {examples}
content_dim = 64

[sequence]
dim = 64
max_len = 20
batch_size = 512
negatives = 512
validation_users = 500
epochs = {epochs}
max_seconds = {seconds}

[shoppers]
neighbours = 100

[transitions]
neighbours = 100
hop_breadth = 10
hop_neighbours = 100

[words]
neighbours = 50
common = 1000
"""


@dataclass(frozen=True, slots=True)
class ScaleShop:
    """A shop that was made. folder: as in the module."""

    name: str
    folder: Path

    @property
    def workspace(self) -> Path:
        return self.folder / "shop"

    def events(self) -> pl.DataFrame:
        return pl.read_parquet(self.folder / "events.parquet")

    def items(self) -> pl.DataFrame:
        return pl.read_parquet(self.folder / "items.parquet")


def scale_shop(name: str, root: Path | None = None, data: Path | None = None) -> ScaleShop:
    """Of a size in `SIZES`; made where it is not there. root: folder of all that are kept."""
    source = data / BEAUTY if name == "12k" and data and (data / BEAUTY / "sequences.txt").is_file() else None
    split = "leave_one_out" if source else "time"
    settings = SETTINGS.format(split=split, **LEARNING[name])
    about = [FORMAT, endcap.__version__, settings, str(source and source.name), asdict(SIZES[name])]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
    place = root or Path(tempfile.gettempdir()) / "endcap-scale"
    shop = ScaleShop(name, place / f"{name}-{digest}")
    if not (shop.folder / "made.json").is_file():
        shutil.rmtree(shop.folder, ignore_errors=True)
        shop.folder.mkdir(parents=True)
        _make(shop, settings, source)
    return shop


def _make(shop: ScaleShop, settings: str, source: Path | None) -> None:
    stages = Stages()
    stages.begin("make the tables")
    if source is not None:
        dataset = amazon_folder(source)
        events, items = dataset.events.drop("line").collect(), dataset.items
    else:
        events, items = made(SIZES[shop.name])
    events.write_parquet(shop.folder / "events.parquet")
    items.write_parquet(shop.folder / "items.parquet")
    del events, items
    with Shop.open(Shop.init(shop.workspace, settings)) as opened:
        stages.begin("ingest")
        opened.ingest(shop.folder / "events.parquet", items=shop.folder / "items.parquet")
        trained = opened.train(evaluate=False, progress=stages.progress)
    stages.end()
    found = {"seconds": stages.seconds, "peak_mb": stages.peak_mb, "notes": list(trained.notes)}
    (shop.folder / "made.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


class Stages:
    """Seconds of each stage, and the process's peak memory by its end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_mb: dict[str, int] = {}
        self._name, self._since = "", time.monotonic()

    @property
    def progress(self) -> Callable[[str, float], None]:
        return lambda name, _share: self.begin(name) if name and name != self._name else None

    def begin(self, name: str) -> None:
        self.end()
        self._name, self._since = name, time.monotonic()
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._name:
            self.seconds[self._name] = round(self.seconds.get(self._name, 0) + time.monotonic() - self._since, 2)
            self.peak_mb[self._name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        self._name = ""


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--root", type=Path, help="folder of all that are kept")
    parser.add_argument("--data", type=Path, default=os.environ.get("ENDCAP_DATA"), help="folder of public data")
    asked = parser.parse_args()
    print(scale_shop(asked.size, asked.root, asked.data).folder)


if __name__ == "__main__":
    main()
