"""What less time buys: whole trainings with fewer of the product's parts, on the leave-one-out benchmark, one seed.

`make bench NAME=time DATASET=beauty DATA=<folder>`. Test target, all items ranked, own history hidden.

    ndcg@10_within_<name>    of a training with those parts; the names and what they train are WITHIN
    seconds_within_<name>    from files to a model that is ready to be measured, texts encoded

`make plots` draws them beside the peers of `make bench NAME=amazon`.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.leave_one_out import METRIC, folder_of, ndcg_by_user, pipeline, training

COUNTED = (
    '"knn", "knn_last", "transitions", "transitions_last", "second_hop", "ease", "shoppers", "trending", "popular"'
)
# From the quickest to the product as it is.
WITHIN = {
    "graph": 'sources = ["transitions", "popular"]\n',
    "counted": f"sources = [{COUNTED}]\n",
    "counted_and_texts": f'sources = [{COUNTED}, "content", "words"]\n',
    "four_epochs": "\n[sequence]\nepochs = 4\n",
    "everything": "",
}


def run(data: Path | None, dataset: str) -> dict[str, float]:
    folder, figures = folder_of(data, dataset), dict[str, float]()
    for name in WITHIN:
        figures[f"{METRIC}_within_{name}"], figures[f"seconds_within_{name}"] = reached(folder, name)
    return figures


def reached(folder: Path, name: str) -> tuple[float, float]:
    """NDCG@10 on the test target, and the seconds from files to a model."""
    started = time.monotonic()
    with training(folder, 0, WITHIN[name]) as (begun, steps):
        fusion = begun.fuse(begun.teach(steps))
        fitted = begun.fit_at(steps.test)
        seconds = time.monotonic() - started
        found = float(ndcg_by_user(begun, steps, fitted, {"": pipeline(begun, fitted, fusion)})[""].mean())
    print(f"within {name}: {found:.4f} in {seconds:.0f} s", flush=True)
    return found, seconds
