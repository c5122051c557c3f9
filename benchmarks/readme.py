"""Writes the measured figures into README.md, between its markers: python -m benchmarks.readme

A test holds the README against the recorded results, so neither can change alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
TASKS = {
    "all": "Next basket, repeats count (2,289)",
    "discovery": "What is new to the household (2,031)",
    "cart": "The rest of a half-full cart (2,060)",
}


def main() -> None:
    README.write_text(written(README.read_text("utf-8")), encoding="utf-8")


def written(text: str) -> str:
    """The README with every marked block as the results have it."""
    for name, block in BLOCKS.items():
        marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = marked.sub(lambda found, block=block: found[1] + block() + found[2], text)
    return text


def _record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((HERE / "results" / f"{name}.json").read_text("utf-8"))
    return record


def _speed() -> str:
    record = _record("demo")
    figures = record["figures"]
    return (
        "- **Minutes, not days.** The demo ingests 1,469,307 purchases of 2,469 households, trains, measures and\n"
        f"  publishes in {figures['seconds_total'] / 60:.1f} minutes on two cores"
        f" ({record['peak_rss_mb'] / 1024:.1f} GiB at the peak).\n"
        f"- **Live.** The server starts in {figures['seconds_ready']:.1f} s without torch, answers in"
        f" {figures['answer_ms_p50']:.1f} ms (median, one client,\n"
        "  over HTTP), and every event is on disk before it is acknowledged.\n"
    )


def _demo() -> str:
    figures = _record("demo")["figures"]
    lines = ["| Task (households) | Endcap [95 %] | Best baseline | Gain, paired [95 %] |", "|---|---|---|---|"]
    for task, title in TASKS.items():
        key = f"ndcg@10_{task}"
        baselines = {
            name.removeprefix(f"{key}__"): value
            for name, value in figures.items()
            if name.startswith(f"{key}__") and not name.endswith(("_lo", "_hi"))
        }
        best = max(baselines, key=baselines.__getitem__)
        ours, lo, hi = (figures[f"{key}{end}"] for end in ("", "_lo", "_hi"))
        gain, gain_lo, gain_hi = (figures[f"{key}_gain{end}"] for end in ("", "_lo", "_hi"))
        lines.append(
            f"| {title} | **{ours:.4f}** [{lo:.4f}, {hi:.4f}] | {baselines[best]:.4f} ({best.replace('_', ' ')}) "
            f"| +{gain:.4f} [{gain_lo:.4f}, {gain_hi:.4f}] |"
        )
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, Callable[[], str]] = {"speed": _speed, "demo": _demo}


if __name__ == "__main__":
    main()
