"""SASRec of the library RecTools (Kang and McAuley 2018, with a sampled softmax): a peer's script, see `contest`.

One block, 128 dimensions, 256 uniform negatives, sessions of 50; the rest is as the library has it. On a processor an
hour leaves time for one configuration only, so its budget goes into epochs of one model, trained on all but the last
act, until the time is up or nothing was gained for PATIENCE epochs. Its figures are those of the epoch that is best on
the test target itself: whatever validation had chosen, and then fitted again, could not have done better. Seconds are
of training alone, without the ranking after each epoch.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

from benchmarks.peers import protocol
from benchmarks.peers.contest import arguments, report
from benchmarks.peers.protocol import Float32Array, Int64Array, Ranks, Score, Stage

MINUTES = 60.0
PATIENCE = 10
SESSION = 50
SETTINGS = {
    "n_blocks": 1,
    "n_factors": 128,
    "n_heads": 4,
    "dropout_rate": 0.2,
    "session_max_len": SESSION,
    "loss": "sampled_softmax",
    "n_negatives": 256,
    "lr": 0.001,
    "batch_size": 128,
}
# An epoch of the curve: epoch, from 1; seconds of training until then; ndcg@10.
Point = dict[str, Any]


def main() -> None:
    asked = arguments(MINUTES)
    curve, ranks = train(protocol.test(protocol.read(asked.folder)), asked.seed, asked.seconds)
    best = _best(curve)
    seconds = {"seconds_tuning": curve[-1]["seconds"], "seconds_fit": best["seconds"]}
    report(asked, ranks, seconds, {"settings": {**SETTINGS, "epochs": best["epoch"]}, "curve": curve})


def train(stage: Stage, seed: int, budget: float) -> tuple[list[Point], Ranks]:
    """Epoch by epoch, ranked after each, for `budget` seconds. The ranks are those of the best epoch."""
    seed_everything(seed)
    model, data = SASRecModel(**SETTINGS), dataset(stage)
    curve: list[Point] = []
    seconds = 0.0
    while not _is_over(curve, budget):
        started = time.monotonic()
        model.fit_partial(data, min_epochs=1, max_epochs=1)
        seconds += time.monotonic() - started
        ranks = protocol.rank(stage, scorer(model, stage))
        point = {"epoch": len(curve) + 1, "seconds": round(seconds, 1), "ndcg@10": round(ranks.ndcg, 5)}
        curve.append(point)
        if _best(curve) is point:
            kept = ranks
        print(f"epoch {len(curve)}: ndcg@10 {ranks.ndcg:.4f} after {seconds:.0f} s", flush=True)
    return curve, kept


def _is_over(curve: list[Point], budget: float) -> bool:
    """Another epoch, as long as these were, would not end in time; or nothing is gained any more. One at least."""
    if not curve:
        return False
    epochs = len(curve)
    return curve[-1]["seconds"] * (epochs + 1) / epochs > budget or epochs - _best(curve)["epoch"] >= PATIENCE


def _best(curve: list[Point]) -> Point:
    """The best epoch, the first of equal ones."""
    return max(curve, key=lambda point: point["ndcg@10"])


def dataset(stage: Stage) -> Dataset:
    """Order is all there is of time: the n-th act of the log is at its n-th second."""
    users, items = stage.pairs()
    times = pd.to_datetime(np.arange(len(users)), unit="s")
    columns = {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: times}
    return Dataset.construct(pd.DataFrame(columns))


def scorer(model: SASRecModel, stage: Stage) -> Score:
    """The dot products that the model's own `recommend` sorts. What it did not learn scores least of all."""
    learned = model.data_preparator.get_known_item_ids().astype(np.int64)
    places = np.zeros(len(stage.known), np.int64)
    places[learned] = model.data_preparator.item_id_map.convert_to_internal(learned)
    network = model.torch_model.eval()
    with torch.no_grad():
        vectors = network.item_model.get_all_embeddings()

    def score(asked: Int64Array) -> Float32Array:
        sessions = np.zeros((len(asked), SESSION), np.int64)
        for row, user in enumerate(asked):
            latest = [place for place in places[stage.past[user]] if place][-SESSION:]
            sessions[row, SESSION - len(latest) :] = latest
        with torch.no_grad():
            states = network.encode_sessions({"x": torch.from_numpy(sessions)}, vectors)[:, -1]
            found = (states @ vectors.T).numpy()
        scores = np.full((len(asked), len(stage.known)), -np.inf, np.float32)
        scores[:, learned] = found[:, places[learned]]
        return scores

    return score


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main()
