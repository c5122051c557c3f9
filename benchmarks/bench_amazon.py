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
from pathlib import Path

from benchmarks.leave_one_out import folder_of
from benchmarks.peers.run import named, run_peers
from benchmarks.run import HERE, tell
from endcap.app.benchmark import benchmark


def run(data: Path | None, dataset: str, seeds: int, peers: str = "") -> dict[str, float]:
    folder, names = folder_of(data, dataset), named(peers)
    found = benchmark(folder, seeds=seeds, progress=tell)
    for note in found.notes:
        print(note)
    print(found.comparison.to_markdown())
    if not names:
        return found.figures
    figures, details = run_peers(names, folder, seed=0, progress=tell)
    (HERE / "results" / f"amazon-{dataset}-peers.json").write_text(
        json.dumps(details, indent=1) + "\n", encoding="utf-8"
    )
    return found.figures | figures
