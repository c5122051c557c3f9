"""The tables that the README and docs/benchmarks.md show, made from the recorded figures and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TASKS = {
    "all": "Next basket, repeats count (2,289)",
    "discovery": "What is new to the household (2,031)",
    "cart": "The rest of a half-full cart (2,060)",
}
PEERS = {
    "rectools_sasrec": "RecTools SASRec",
    "lenskit_slim": "LensKit SLIM",
    "implicit_als": "implicit ALS",
    "implicit_bpr": "implicit BPR",
}
WITHIN = {
    "graph": "graph and popularity",
    "counted": "all that is counted",
    "counted_and_texts": "with texts",
    "four_epochs": "with four epochs of the transformer",
    "everything": "with all twelve epochs",
}
# Sources that the ablation also takes away together.
FAMILIES = {
    "graph": ("transitions", "transitions_last", "second_hop"),
    "neighbours": ("knn", "knn_last", "ease", "shoppers"),
    "texts": ("content", "words"),
    "popularity": ("trending", "popular"),
}
SHOPS = ("beauty", "sports")
BOUNDS = ("_lo", "_hi")
METRICS = ("ndcg@10", "recall@10")
Figures = dict[str, float]


def record(name: str) -> dict[str, Any]:
    """A recorded run, whole. FileNotFoundError names the file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def figures(name: str) -> Figures:
    found: Figures = record(name)["figures"]
    return found


def speed() -> str:
    demo = record("demo")
    found = demo["figures"]
    return (
        "- **Minutes, not days.** The demo ingests 1,469,307 purchases of 2,469 households, trains, measures and\n"
        f"  publishes in {found['seconds_total'] / 60:.1f} minutes on two cores"
        f" ({demo['peak_rss_mb'] / 1024:.1f} GiB at the peak).\n"
        f"- **Live.** The server starts in {found['seconds_ready']:.1f} s without torch, answers in"
        f" {found['answer_ms_p50']:.1f} ms (median, one client,\n"
        "  over HTTP), and every event is on disk before it is acknowledged.\n"
    )


def demo() -> str:
    found = figures("demo")
    rows = []
    for task, title in TASKS.items():
        key = f"ndcg@10_{task}"
        baselines = beside(found, f"{key}__")
        best = max(baselines, key=baselines.__getitem__)
        gain, lo, hi = (found[f"{key}_gain{end}"] for end in ("", *BOUNDS))
        beaten = f"{baselines[best]:.4f} ({words(best)})"
        rows.append((title, f"**{found[key]:.4f}** {_within(found, key)}", beaten, f"+{gain:.4f} [{lo:.4f}, {hi:.4f}]"))
    return table(("Task (households)", "Endcap [95 %]", "Best baseline", "Gain, paired [95 %]"), rows)


def amazon() -> str:
    """Ours, with and without what the items' texts say, and every peer; the data sets side by side."""
    recorded = [shop for shop in SHOPS if _recorded(f"amazon-{shop}")]
    shops = [figures(f"amazon-{shop}") for shop in recorded]
    bare = [figures(f"amazon-{shop}-ids") if _recorded(f"amazon-{shop}-ids") else {} for shop in recorded]
    ours = [f"**{shop[metric]:.4f}** {_within(shop, metric)}" for shop in shops for metric in METRICS]
    rows = [("**Endcap**", *ours)]
    if any(bare):
        rows.append(("Endcap without texts", *(_cell(shop, metric) for shop in bare for metric in METRICS)))
    for peer, said in PEERS.items():
        rows.append((said, *(_cell(shop, f"{metric}__peer_{peer}") for shop in shops for metric in METRICS)))
    named = [f"{shop.title()} {said}" for shop in recorded for said in ("NDCG@10", "Recall@10")]
    return table(("", *named), rows)


def costs(shop: str) -> str:
    """What ours and the peers took."""
    run = record(f"amazon-{shop}")
    found = run["figures"]
    rows = [("Endcap", None, found["seconds_per_seed"], found["users_per_second"], run["peak_rss_mb"])]
    for peer, said in PEERS.items():
        if f"seconds_fit__peer_{peer}" in found:
            names = ("seconds_tuning", "seconds_fit", "users_per_second", "peak_rss_mb")
            rows.append((said, *(found[f"{name}__peer_{peer}"] for name in names)))
    head = ("", "Tuning, s", "Training, s", "Users ranked a second", "Memory at the peak, MB")
    return table(head, [(said, *(_amount(value) for value in values)) for said, *values in rows])


def measuring() -> str:
    """How much of our time in `costs` is no training, by what the same training took without, in a sentence."""
    told = []
    for shop in SHOPS:
        whole = round(figures(f"amazon-{shop}")["seconds_per_seed"])
        trained = round(figures(f"time-{shop}")["seconds_within_everything"])
        told.append(f"{whole - trained} of {whole} on {shop.title()}")
    return (
        "Endcap's seconds here include measuring the whole, and every source alone, on both tasks, nearly half of\n"
        f"them ({', '.join(told)}); those under [What less time buys](#what-less-time-buys) do not.\n"
    )


def sources(shop: str) -> str:
    """Every source alone, best first."""
    found = figures(f"amazon-{shop}")
    alone = {name: value for name, value in beside(found, "ndcg@10__").items() if not name.startswith("peer_")}
    best_first = sorted(alone, key=alone.__getitem__, reverse=True)
    rows = [(words(name), *(f"{found[figure]:.4f}" for figure in _four(f"__{name}"))) for name in best_first]
    whole = ("all of them, ranked", *(f"**{found[name]:.4f}**" for name in _four("")))
    return table(("", "NDCG@10", "Recall@10", "NDCG@10, unfiltered", "Recall@10, unfiltered"), [whole, *rows])


def ablation(shop: str) -> str:
    """What is lost without each part, most first."""
    found = figures(f"ablation-{shop}")
    key = "ndcg@10_lost_"
    lost = beside(found, key)
    rows = [
        (part(name), f"{found[f'ndcg@10_without_{name}']:.4f}", f"{lost[name]:+.4f} {_within(found, key + name)}")
        for name in sorted(lost, key=lost.__getitem__, reverse=True)
    ]
    return table(("Without", "NDCG@10", "Lost [95 %]"), [("nothing", f"{found['ndcg@10']:.4f}", ""), *rows])


def time(shop: str) -> str:
    """What less time buys, and how much sooner than RecTools' SASRec at its best that is."""
    found, best, after = _against_sasrec(shop)
    rows = []
    for name, said in WITHIN.items():
        quality, seconds = found[f"ndcg@10_within_{name}"], found[f"seconds_within_{name}"]
        sooner = f"{after / seconds:.1f} times" if quality > best else ""
        rows.append((said, f"{seconds:.0f}", f"{quality:.4f}", sooner))
    rows.append(("RecTools SASRec at its best", f"{after:,.0f}", f"{best:.4f}", ""))
    return table(("", "Seconds of training", "NDCG@10", "Sooner than RecTools' best"), rows)


def sooner() -> str:
    """How long the sources that count take to beat RecTools' SASRec at its best, in a sentence. ValueError where they
    do not."""
    told = []
    for shop in SHOPS:
        found, best, after = _against_sasrec(shop)
        if found["ndcg@10_within_counted"] <= best:
            raise ValueError(f"On {shop}, what is counted does not beat RecTools' SASRec.")
        seconds = found["seconds_within_counted"]
        told.append(f"{seconds:.0f} seconds on {shop.title()} ({after / seconds:.0f} times sooner)")
    return (
        "Its counting sources alone, without texts or transformer, beat RecTools' SASRec at its best after\n"
        f"{' and '.join(told)}.\n"
    )


def cold(shop: str) -> str:
    """Who finds new items, and what showing them costs the others."""
    found = figures(f"cold-{shop}")
    alone = beside(found, "recall@10_cold__")
    kept = [(f"one place in {step} for new items", f"_every_{step}") for step in (10, 5)]
    rows = [
        (said, f"{found[f'recall@10_cold{end}']:.4f}", f"{found[f'ndcg@10_warm{end}']:.4f}")
        for said, end in [("the whole product", ""), *kept]
    ]
    rows.append(("the same with new items hidden", "", f"{found['ndcg@10_warm_hidden']:.4f}"))
    blind = alone.pop("random")
    some = sorted((name for name in alone if alone[name] > 0), key=alone.__getitem__, reverse=True)
    rows += [(f"{words(name)} alone", f"{alone[name]:.4f}", "") for name in some]
    rows.append(
        ("popularity, or any other source, alone", f"{max(alone[name] for name in alone.keys() - some):.4f}", "")
    )
    rows.append(("ten items drawn blindly", f"{blind:.4f}", ""))
    return table(("", "Recall@10 of new items", "NDCG@10 of all the others"), rows)


def transfer(shop: str) -> str:
    """Begun from the other shop's weights, against from nothing."""
    found = figures(f"transfer-{shop}")
    rows = []
    for items, said in (("ids", "items have vectors of their own"), ("content", "items are their content")):
        for begun, how in (("scratch", "from nothing"), ("start", "from the other shop's weights")):
            names = [f"ndcg@10_{items}_{percent}_{begun}" for percent in (1, 10, 100)]
            rows.append((f"{said}, {how}", "", *(_spread(found, name) for name in names)))
    rows.append(("the other shop's weights as they are", _spread(found, "ndcg@10_asis"), "", "", ""))
    return table(("Users that are learned from", "none", "1 %", "10 %", "100 %"), rows)


def refit() -> str:
    """A week later."""
    found = figures("refit")
    rows = [
        (
            title.split(" (")[0],
            *(f"{found[f'ndcg@10_{task}__{name}']:.4f}" for name in ("stale", "refit", "full")),
            f"{found[f'ndcg@10_{task}_loss']:+.4f} {_within(found, f'ndcg@10_{task}_loss')}",
        )
        for task, title in TASKS.items()
    ]
    seconds = ("seconds", "", f"{found['seconds_refit']:.0f}", f"{found['seconds_full']:.0f}", "")
    return table(("", "As it was", "Refitted", "Trained anew", "Lost by the refit [95 %]"), [*rows, seconds])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in line)}|\n" for line in lines)


def _four(end: str) -> list[str]:
    return [f"{metric}{part}{end}" for part in ("", "_unfiltered") for metric in METRICS]


def beside(found: Figures, prefix: str) -> dict[str, float]:
    """What follows the prefix -> the figure, without bounds."""
    names = [name for name in found if name.startswith(prefix) and not name.endswith(BOUNDS)]
    return {name.removeprefix(prefix): found[name] for name in names}


def _amount(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1 else f"{value:.1f}"


def _against_sasrec(shop: str) -> tuple[Figures, float, float]:
    """What less time buys; RecTools' best NDCG@10, and the seconds of training after which it was reached."""
    beside_it = figures(f"amazon-{shop}")
    best, after = (beside_it[f"{name}__peer_rectools_sasrec"] for name in ("ndcg@10", "seconds_fit"))
    return figures(f"time-{shop}"), best, after


def _recorded(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()


def _cell(found: Figures, name: str) -> str:
    return f"{found[name]:.4f} {_within(found, name)}" if name in found else "–"


def _within(found: Figures, name: str) -> str:
    lo, hi = (found[f"{name}{end}"] for end in BOUNDS)
    return f"[{lo:.4f}, {hi:.4f}]"


def _spread(found: Figures, name: str) -> str:
    return f"{found[name]:.4f} ± {found[f'{name}_sd']:.4f}"


def part(name: str) -> str:
    """What the ablation takes away, in words."""
    if name.startswith("ranker"):
        return "ranker: the blend orders" if name == "ranker" else "ranker and blend: rank fusion orders the same 100"
    family = FAMILIES.get(name.removeprefix("all_")) if name.startswith("all_") else None
    return f"{words(name)}: {', '.join(map(words, family))}" if family else words(name)


def words(name: str) -> str:
    return name.replace("_", " ")
