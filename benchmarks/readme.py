"""Writes the measured figures into README.md and docs/benchmarks.md, between their markers: python -m benchmarks.readme

A test holds both against the recorded results, so neither can change alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import tables, tables_models, tables_serving

ROOT = Path(__file__).parents[1]
EACH = {"costs": tables.costs, "sources": tables.sources, "time": tables.time}
PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {
        "speed": tables.speed,
        "live": tables_serving.live,
        "models": tables_models.models,
        "demo": tables.demo,
        "amazon": tables.amazon,
        "sooner": tables.sooner,
    },
    ROOT / "docs" / "benchmarks.md": {
        "amazon": tables.amazon,
        **{f"{name}-{shop}": partial(block, shop) for name, block in EACH.items() for shop in tables.SHOPS},
        "measuring": tables.measuring,
        "ablation": partial(tables.ablation, "beauty"),
        "cold": partial(tables.cold, "beauty"),
        "refit": tables.refit,
        "transfer": partial(tables.transfer, "beauty"),
        "encoders": tables_models.encoders,
        "multimodal": tables_models.multimodal,
        "methods": tables_models.methods,
        "texts": tables_models.texts,
        "interest": tables_models.interest,
        "content": tables_models.content,
        "judge": tables_models.judge,
        "serving": tables_serving.serving,
        "under-load": tables_serving.under_load,
        "stages": tables_serving.stages,
        "durability": tables_serving.durability,
        "writing": tables_serving.writing,
        "demo": tables.demo,
    },
}


def main() -> None:
    for page, blocks in PAGES.items():
        page.write_text(written(page.read_text("utf-8"), blocks), encoding="utf-8")


def written(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """The page with every marked block as the results have it. LookupError names one that the page has no place for."""
    for name, block in blocks.items():
        marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, places = marked.subn(lambda found, block=block: found[1] + block() + found[2], text)
        if not places:
            raise LookupError(f"The page has no <!-- {name} --> and <!-- /{name} -->.")
    return text


if __name__ == "__main__":
    main()
