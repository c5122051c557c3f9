"""Leave-one-out on a folder of sequences, all items ranked, one training a seed.

`make bench NAME=amazon DATASET=beauty DATA=<folder> SEEDS=3` writes `results/amazon-beauty.json`. Figures: `ndcg@10`
and `recall@10` with own history filtered out, `..._unfiltered` without, both with intervals over users of the mean over
seeds; the same of every source (`ndcg@10__transitions`); seconds a seed from files to figures; users ranked a second.

With PEERS=all, or names by comma, the peers of `benchmarks.peers` follow on the same folder, as `ndcg@10__peer_<name>`,
each within its own budget: an hour for RecTools' SASRec, ten minutes for the others. What was chosen for each, and the
curve of SASRec over time, goes to `results/amazon-beauty-peers.json`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.peers.run import PEERS, run_peers
from benchmarks.run import HERE, peak_rss_mb
from endcap.app.benchmark import benchmark
from endcap.core.errors import CallerError


def run(data: Path | None, dataset: str, seeds: int, peers: str = "") -> dict[str, float]:
    folder = folder_of(data, dataset)
    found = benchmark(folder, seeds=seeds, progress=_tell)
    for note in found.notes:
        print(note)
    print(found.comparison.to_markdown())
    ours = found.figures | {"peak_rss_mb": peak_rss_mb()}  # read before any peer takes more
    names = list(PEERS) if peers == "all" else [name for name in peers.split(",") if name]
    if not names:
        return ours
    figures, details = run_peers(names, folder, seed=0, progress=_tell)
    (HERE / "results" / f"amazon-{dataset}-peers.json").write_text(
        json.dumps(details, indent=1) + "\n", encoding="utf-8"
    )
    return ours | figures


def folder_of(data: Path | None, dataset: str) -> Path:
    """The folder itself, or the one named after the data set in it."""
    if data is None:
        raise CallerError("No folder was named.", where="DATA", next_step="Add DATA=<folder with sequences.txt>.")
    places = (data, data / dataset, data / f"amazon-{dataset}")
    found = next((place for place in places if (place / "sequences.txt").is_file()), None)
    if found is None:
        raise CallerError("There is no sequences.txt.", where=str(data), next_step="Check DATA and DATASET.")
    return found


def _tell(stage: str, share: float) -> None:
    if share == 0.0:
        print(f"{time.strftime('%H:%M:%S')} {stage}", flush=True)
