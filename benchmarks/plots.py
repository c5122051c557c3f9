"""Draws recorded figures into docs/images: make plots

demo.svg                 the product beside its best baselines, three tasks
time-<dataset>.svg       NDCG@10 against training seconds, ours and the peers'
ablation-<dataset>.svg   what each part is worth
transfer-<dataset>.svg   begun from weights of another shop, against from nothing
judge-<dataset>.svg      ranker and cross-encoder, by how much is known of a shopper
finetune-interest.svg    learning curves of tunings, and which evaluation was kept
serving.svg              latency by catalogue size, ours and a plain ALS service's
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.tables import PEERS, RESULTS, WITHIN, Figures, beside, figures, part, words
from benchmarks.tables_models import KNOWN
from benchmarks.tables_serving import SIZES, measured, serving_figures

IMAGES = RESULTS.parents[1] / "docs" / "images"
OURS, THEIRS = "#d9480f", "#868e96"
METRIC = "ndcg@10"
BASELINES = 6
TASKS = {"all": "Next basket", "discovery": "New to the household", "cart": "Rest of the basket"}
LOOK = {
    "svg.hashsalt": "endcap",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}


def main() -> None:
    mpl.rcParams.update(LOOK)
    with drawing("demo", (11, 2.6), panels=len(TASKS)) as panels:
        for axes, task in zip(panels, TASKS, strict=True):
            demo(axes, task, figures("demo"))
    for name in sorted(path.stem for path in RESULTS.glob("ablation-*.json")):
        with drawing(name, (8, 6)) as (axes,):
            ablation(axes, figures(name))
    for name in sorted(path.stem for path in RESULTS.glob("time-*.json")):
        with drawing(name, (8, 5)) as (axes,):
            over_time(axes, figures(name), name.removeprefix("time-"))
    for name in sorted(path.stem for path in RESULTS.glob("transfer-*.json")):
        with drawing(name, (7, 4.5)) as (axes,):
            transfer(axes, figures(name))
    for name in sorted(path.stem for path in RESULTS.glob("judge-*.json")):
        with drawing(name, (6, 3.6)) as (axes,):
            crossing(axes, figures(name))
    with drawing("finetune-interest", (9, 3.6), panels=2) as panels:
        learning(panels, figures("finetune-interest"))
    if measured(serving_figures()):
        with drawing("serving", (7, 3.6)) as (axes,):
            serving(axes, serving_figures())


def demo(axes: Axes, task: str, found: Figures) -> None:
    """Ours with its interval, and the best baselines."""
    key = f"{METRIC}_{task}"
    others = sorted(beside(found, f"{key}__").items(), key=lambda one: one[1])[-BASELINES:]
    bars = axes.barh([words(name) for name, _ in others], [value for _, value in others], color=THEIRS, height=0.7)
    error = [[found[key] - found[f"{key}_lo"]], [found[f"{key}_hi"] - found[key]]]
    ours = axes.barh(["Endcap"], [found[key]], xerr=error, color=OURS, height=0.7)
    for drawn in (bars, ours):
        axes.bar_label(drawn, fmt="%.4f", padding=8, fontsize=8)
    axes.set_title(f"{TASKS[task]}, NDCG@10", fontsize=10, fontweight="bold")
    axes.margins(x=0.25)
    axes.set_xticks([])
    axes.tick_params(labelsize=8, length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def ablation(axes: Axes, found: Figures) -> None:
    """How much NDCG@10 is lost without each part, with the interval over users."""
    key = f"{METRIC}_lost_"
    lost = dict(sorted(beside(found, key).items(), key=lambda one: one[1]))
    errors = [
        [value - found[f"{key}{name}_lo"] for name, value in lost.items()],
        [found[f"{key}{name}_hi"] - value for name, value in lost.items()],
    ]
    names = [part(name).split(":")[0] for name in lost]
    axes.barh(names, list(lost.values()), xerr=errors, color=OURS, ecolor=THEIRS, height=0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"NDCG@10 lost without it, of {found[METRIC]:.4f}")


def over_time(axes: Axes, found: Figures, dataset: str) -> None:
    """Ours by what is trained; the peers by how long they train, tuning not counted."""
    reached = beside(found, f"{METRIC}_within_")
    seconds = [found[f"seconds_within_{name}"] for name in reached]
    axes.plot(seconds, list(reached.values()), "o-", color=OURS, label="Endcap, from files to a model")
    for place, (x, (name, y)) in enumerate(zip(seconds, reached.items(), strict=True)):
        _say(axes, WITHIN[name], x, y, OURS, before=place % 2 == 1)
    beaten = figures(f"amazon-{dataset}") if (RESULTS / f"amazon-{dataset}.json").exists() else {}
    for peer, said in PEERS.items():
        if peer != "rectools_sasrec" and f"{METRIC}__peer_{peer}" in beaten:
            x, y = beaten[f"seconds_fit__peer_{peer}"], beaten[f"{METRIC}__peer_{peer}"]
            axes.plot([x], [y], "s", color=THEIRS)
            _say(axes, said, x, y, THEIRS)
    if points := _details(dataset).get("rectools_sasrec", {}).get("curve"):
        axes.plot(
            [point["seconds"] for point in points],
            [point[METRIC] for point in points],
            "s-",
            color=THEIRS,
            markersize=4,
        )
        best = max(points, key=lambda point: point[METRIC])
        _say(axes, PEERS["rectools_sasrec"], best["seconds"], best[METRIC], THEIRS, before=True)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training on two cores, one fit")
    axes.set_ylabel("NDCG@10 on the test target, own history hidden")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.12)
    axes.legend(loc="lower right", frameon=False)


def transfer(axes: Axes, found: Figures) -> None:
    """A line for each way of beginning, over the share of users that is learned from."""
    for items, colour, said in (
        ("content", THEIRS, "items are their content"),
        ("ids", OURS, "items have vectors of their own"),
    ):
        for begun, style, how in (("scratch", "--", "from nothing"), ("start", "-", "from the other shop's weights")):
            names = [f"{METRIC}_{items}_{percent}_{begun}" for percent in (1, 10, 100)]
            spread = [found[f"{name}_sd"] for name in names]
            reached = [found[name] for name in names]
            axes.errorbar([1, 10, 100], reached, spread, fmt=f"o{style}", color=colour, label=f"{said}, {how}")
    axes.axhline(found[f"{METRIC}_asis"], color=THEIRS, linestyle=":", label="the other shop's weights as they are")
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 100], ["1 %", "10 %", "100 %"])
    axes.set_xlabel("users that are learned from")
    axes.set_ylabel("NDCG@10 on the test target")
    axes.legend(frameon=False, fontsize=8)


def learning(panels: list[Axes], found: Figures) -> None:
    """Validation figures at each evaluation; a ring is round the one that was kept."""
    curves = {
        "mrr_interest_full": (panels[0], OURS, "full"),
        "mrr_interest_lora": (panels[0], THEIRS, "LoRA"),
        "auc_interest_cross_valid": (panels[1], OURS, "cross-encoder"),
    }
    for name, (axes, colour, said) in curves.items():
        values = [value for at, value in beside(found, f"{name}_at_").items() if at.isdigit()]
        axes.plot(range(1, len(values) + 1), values, "o-", color=colour, label=said)
        kept = round(found[f"{name}_kept_at"])
        axes.plot([kept], [values[kept - 1]], "o", markersize=12, fillstyle="none", color=colour)
        axes.set_xticks(range(1, len(values) + 1))
        axes.set_xlabel("evaluation")
        axes.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("MRR@10 of the next title, validation")
    panels[1].set_ylabel("AUC, validation")


def crossing(axes: Axes, found: Figures) -> None:
    """NDCG@10 over how much is known of a shopper, by who orders the first ten."""
    buckets = [name for name in KNOWN if name]
    for end, colour, said in (
        ("", THEIRS, "the ranker"),
        ("_alone", "#4c6ef5", "the cross-encoder alone"),
        ("_with", OURS, "both, as training weighs them"),
    ):
        reached = [found[f"{METRIC}_{bucket}{end}"] for bucket in buckets]
        axes.plot([KNOWN[bucket] for bucket in buckets], reached, "o-", color=colour, label=said)
    axes.set_xlabel("acts of the shopper that are known")
    axes.set_ylabel("NDCG@10 on the test target")
    axes.legend(frameon=False, fontsize=8)


@contextmanager
def drawing(name: str, inches: tuple[float, float], panels: int = 1) -> Iterator[list[Axes]]:
    """Panels side by side, saved under a name."""
    figure, axes = pyplot.subplots(1, panels, figsize=inches, squeeze=False)
    yield list(axes[0])
    target = IMAGES / f"{name}.svg"
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
    print(target.relative_to(IMAGES.parents[1]))


def _say(axes: Axes, text: str, x: float, y: float, colour: str, *, before: bool = False) -> None:
    """Below and behind a point, or above and before it, so that neighbours do not hide each other."""
    shift, side = ((-5, 6), "right") if before else ((5, -11), "left")
    axes.annotate(text, (x, y), xytext=shift, textcoords="offset points", color=colour, fontsize=8, ha=side)


def _details(dataset: str) -> dict[str, Any]:
    """What the peers told beside their figures; nothing where they did not run."""
    path = RESULTS / f"amazon-{dataset}-peers.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def serving(axes: Axes, found: Figures) -> None:
    """p50 to p99 of one client by how many items there are."""
    sizes = measured(found)
    for prefix, colour, said, aside in (("", OURS, "Endcap", -0.06), ("als_", THEIRS, "plain ALS service", 0.06)):
        there = [place for place, size in enumerate(sizes) if f"{prefix}p50_ms_{size}" in found]
        p50, p99 = ([found[f"{prefix}{name}_{sizes[place]}"] for place in there] for name in ("p50_ms", "p99_ms"))
        places = [place + aside for place in there]
        axes.vlines(places, p50, p99, color=colour, linewidth=2)
        axes.plot(places, p50, "o-", color=colour, label=f"{said}, median")
        axes.plot(places, p99, "_", color=colour, markersize=10, label=f"{said}, 99 of 100")
    axes.set_xticks(range(len(sizes)), [SIZES[size].split(" (")[0] for size in sizes])
    axes.set_yscale("log")
    axes.set_xlabel("items")
    axes.set_ylabel("milliseconds, one client, one core")
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
