"""Writes the measured figures into README.md and docs/benchmarks.md, between their markers: python -m benchmarks.readme

A test holds both against the recorded results, so neither can change alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).parents[1]
PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {"speed": tables.speed, "demo": tables.demo, "amazon": tables.amazon},
    ROOT / "docs" / "benchmarks.md": {
        "amazon": tables.amazon,
        "costs-beauty": partial(tables.costs, "beauty"),
        "sources-beauty": partial(tables.sources, "beauty"),
        "cold": partial(tables.cold, "beauty"),
        "refit": tables.refit,
        "transfer": partial(tables.transfer, "beauty"),
        "demo": tables.demo,
    },
}


def main() -> None:
    for page, blocks in PAGES.items():
        page.write_text(written(page.read_text("utf-8"), blocks), encoding="utf-8")


def written(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """The page with every marked block as the results have it."""
    for name, block in blocks.items():
        marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = marked.sub(lambda found, block=block: found[1] + block() + found[2], text)
    return text


if __name__ == "__main__":
    main()
