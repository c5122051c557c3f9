"""What training measured, as tables and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from endcap.cli.terminal import print_table, stdout

SHOWN = ("recall@10", "hit_rate@10", "mrr@10", "map@10", "auc")


def print_evaluation(stored: dict[str, Any]) -> None:
    """stored: as `Shop.evaluation` or `Comparison.to_dict` gives it. Shows the columns that fit, and names the rest."""
    console = stdout()
    for task, found in stored["tasks"].items():
        header, *rows = _cells(stored, found)
        shown = _fitting([header, *rows], console.width)
        print_table(_title(task, found), header[:shown], [row[:shown] for row in rows], header[1:])
        if gap := _gap(stored, found):
            console.print(gap, markup=False)
        if header[shown:]:
            console.print(f"Too wide to show here: {', '.join(header[shown:])}; see --markdown or --json.")


def evaluation_markdown(stored: dict[str, Any]) -> str:
    return "\n\n".join(_markdown(stored, task, found) for task, found in stored["tasks"].items()) + "\n"


def _markdown(stored: dict[str, Any], task: str, found: dict[str, Any]) -> str:
    header, *rows = _cells(stored, found)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(cell.replace('*', chr(92) + '*') for cell in line)} |" for line in lines)
    return f"### {_title(task, found)}\n\n{table}\n\n{_gap(stored, found).replace('*', chr(92) + '*')}".rstrip()


def _fitting(lines: list[list[str]], width: int) -> int:
    """How many columns of a table fit into a width, at least two; each has two blanks and a rule beside its text."""
    free = width - 1
    for place, column in enumerate(zip(*lines, strict=True)):
        free -= max(map(len, column)) + 3
        if free < 0:
            return max(place, 2)
    return len(lines[0])


def _title(task: str, found: dict[str, Any]) -> str:
    return f"{task} ({found['queries']:,} queries)"


def _gap(stored: dict[str, Any], found: dict[str, Any]) -> str:
    gap = found["gaps"].get(stored["headline"])
    if gap is None:
        return ""
    by = gap["difference"]
    return (
        f"* ours. {stored['headline']}: {by['mean']:+.4f} [{by['lo']:+.4f}, {by['hi']:+.4f}] against"
        f" {gap['baseline']}, paired bootstrap over queries."
    )


def _cells(stored: dict[str, Any], found: dict[str, Any]) -> list[list[str]]:
    """The header, then a line for each model, the best first."""
    headline, models = stored["headline"], found["models"]
    metrics = [name for name in SHOWN if any(name in model["metrics"] for model in models.values())]
    totals = list(dict.fromkeys(name for model in models.values() for name in model["totals"]))
    ranked = sorted(models.items(), key=lambda entry: (-entry[1]["metrics"][headline]["mean"], entry[0]))
    lines = [list(_line(name, model, stored, metrics, totals)) for name, model in ranked]
    return [["model", f"{headline} [95 %]", *metrics, *totals], *lines]


def _line(
    name: str, model: dict[str, Any], stored: dict[str, Any], metrics: list[str], totals: list[str]
) -> Iterator[str]:
    inside = model["metrics"][stored["headline"]]
    yield f"{name} *" if name == stored["ours"] else name
    yield f"{inside['mean']:.4f} [{inside['lo']:.4f}, {inside['hi']:.4f}]"
    yield from (f"{model['metrics'][metric]['mean']:.4f}" if metric in model["metrics"] else "" for metric in metrics)
    yield from (f"{model['totals'][total]:,.4f}" if total in model["totals"] else "" for total in totals)
