"""Draws recorded figures into docs/images: make plots

quality-over-time-<dataset>.svg   NDCG@10 against training seconds, ours and the peers'
ablation-<dataset>.svg            what each part is worth
transfer-<dataset>.svg            begun from weights of another shop, against from nothing
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes

HERE = Path(__file__).parent
RESULTS, IMAGES = HERE / "results", HERE.parent / "docs" / "images"
OURS, THEIRS = "#d9480f", "#495057"
METRIC = "ndcg@10"
SAID = {
    "graph": "graph alone",
    "counted": "all that is counted",
    "counted_and_texts": "with texts",
    "four_epochs": "with four epochs",
    "everything": "with all twelve",
    "rectools_sasrec": "RecTools SASRec",
    "lenskit_slim": "LensKit SLIM",
    "implicit_als": "implicit ALS",
    "implicit_bpr": "implicit BPR",
}
LOOK = {
    "svg.hashsalt": "endcap",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}
Figures = dict[str, float]


def main() -> None:
    mpl.rcParams.update(LOOK)
    for path in sorted(RESULTS.glob("ablation-*.json")):
        dataset = path.stem.removeprefix("ablation-")
        _draw(path.stem, partial(ablation, figures=_figures(path)), (8, 5))
        _draw(f"quality-over-time-{dataset}", partial(over_time, figures=_figures(path), dataset=dataset), (8, 5))
    for path in sorted(RESULTS.glob("transfer-*.json")):
        _draw(path.stem, partial(transfer, figures=_figures(path)), (7, 4.5))


def ablation(axes: Axes, figures: Figures) -> None:
    """How much NDCG@10 is lost without each part, with the interval over users."""
    prefix = f"{METRIC}_lost_"
    names = [name.removeprefix(prefix) for name in figures if name.startswith(prefix) and not _is_bound(name)]
    names.sort(key=lambda name: figures[prefix + name])
    lost = [figures[prefix + name] for name in names]
    errors = [
        [value - figures[f"{prefix}{name}_lo"] for name, value in zip(names, lost, strict=True)],
        [figures[f"{prefix}{name}_hi"] - value for name, value in zip(names, lost, strict=True)],
    ]
    axes.barh([name.replace("_", " ") for name in names], lost, xerr=errors, color=OURS, ecolor=THEIRS, height=0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"NDCG@10 lost without it, of {figures[METRIC]:.4f}")


def over_time(axes: Axes, figures: Figures, dataset: str) -> None:
    """Ours by what is trained; the peers by how long they train, tuning not counted."""
    prefix = f"{METRIC}_within_"
    names = [name.removeprefix(prefix) for name in figures if name.startswith(prefix)]
    seconds = [figures[f"seconds_within_{name}"] for name in names]
    reached = [figures[prefix + name] for name in names]
    axes.plot(seconds, reached, "o-", color=OURS, label="Endcap, from files to a model")
    for name, x, y in zip(names, seconds, reached, strict=True):
        axes.annotate(SAID[name], (x, y), xytext=(6, -12), textcoords="offset points", color=OURS)
    record = RESULTS / f"amazon-{dataset}.json"
    for name, value in (_figures(record) if record.exists() else {}).items():
        peer = name.removeprefix(f"{METRIC}__peer_")
        if peer in SAID and peer != "rectools_sasrec" and name != peer:
            x = _figures(record)[f"seconds_fit__peer_{peer}"]
            axes.plot([x], [value], "s", color=THEIRS)
            axes.annotate(SAID[peer], (x, value), xytext=(6, -3), textcoords="offset points", color=THEIRS)
    told = RESULTS / f"amazon-{dataset}-peers.json"
    details = json.loads(told.read_text("utf-8")) if told.exists() else {}
    if points := details.get("rectools_sasrec", {}).get("curve"):
        x, y = [point["seconds"] for point in points], [point[METRIC] for point in points]
        axes.plot(x, y, "s-", color=THEIRS, markersize=4)
        axes.annotate(
            SAID["rectools_sasrec"], (x[-1], y[-1]), xytext=(-60, 8), textcoords="offset points", color=THEIRS
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training on two cores, one fit")
    axes.set_ylabel("NDCG@10 on the test target, own history hidden")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", frameon=False)


def transfer(axes: Axes, figures: Figures) -> None:
    """A line for each way of beginning, over the share of users that is learned from."""
    for items, colour in (("content", THEIRS), ("ids", OURS)):
        for begun, style, said in (("scratch", "--", "from nothing"), ("start", "-", "from the other shop's weights")):
            names = [f"{METRIC}_{items}_{percent}_{begun}" for percent in (1, 10, 100)]
            reached, spread = [figures[name] for name in names], [figures.get(f"{name}_sd", 0.0) for name in names]
            axes.errorbar(
                [1, 10, 100], reached, spread, fmt=f"o{style}", color=colour, label=f"{_items(items)}, {said}"
            )
    axes.axhline(figures[f"{METRIC}_asis"], color=THEIRS, linestyle=":", label="the other shop's weights as they are")
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 100], ["1 %", "10 %", "100 %"])
    axes.set_xlabel("users that are learned from")
    axes.set_ylabel("NDCG@10 on the test target")
    axes.legend(frameon=False, fontsize=8)


def _items(kind: str) -> str:
    return "items are their content" if kind == "content" else "items have vectors of their own"


def _draw(name: str, draw: Callable[[Axes], None], size: tuple[float, float]) -> None:
    figure, axes = pyplot.subplots(figsize=size)
    draw(axes)
    target = IMAGES / f"{name}.svg"
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
    print(target.relative_to(HERE.parent))


def _figures(path: Path) -> Figures:
    found: Figures = json.loads(path.read_text("utf-8"))["figures"]
    return found


def _is_bound(name: str) -> bool:
    return name.endswith(("_lo", "_hi"))


if __name__ == "__main__":
    main()
