"""SASRec of the library RecTools (Kang and McAuley 2018, with a sampled softmax): a peer's script, see `contest`.

One block, 128 dimensions, 256 uniform negatives, sessions of 50; the rest is as the library has it. On a processor an
hour leaves time for one configuration only, so its budget goes into epochs: the validation model trains until the time
is up, or until it has not improved for PATIENCE epochs, and its best epoch is how long the test model trains, in as
much time again. The second figures of both curves are of training alone, without the ranking after each epoch. The
test curve is there to be drawn; nothing is chosen by it, and the figures are those of its last point.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
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
# An epoch of a curve: epoch, from 1; seconds of training until then; ndcg@10.
Point = dict[str, Any]


def main() -> None:
    asked = arguments(MINUTES)
    log = protocol.read(asked.folder)
    started = time.monotonic()

    def is_over(curve: list[Point]) -> bool:
        elapsed = time.monotonic() - started
        return elapsed * (len(curve) + 1) / len(curve) > asked.seconds or len(curve) - best(curve) >= PATIENCE

    validated, _ = train(protocol.validation(log), asked.seed, is_over, "validation")
    seconds_tuning = time.monotonic() - started
    epochs = best(validated)
    tested, ranks = train(protocol.test(log), asked.seed, lambda curve: len(curve) == epochs, "test")
    seconds = {
        "seconds_tuning": seconds_tuning,
        "seconds_to_best": validated[epochs - 1]["seconds"],
        "seconds_fit": tested[-1]["seconds"],
    }
    curves = {"validation": validated, "test": tested}
    report(asked, ranks, seconds, {"settings": {**SETTINGS, "epochs": epochs}, "curves": curves})


def best(curve: list[Point]) -> int:
    """The epoch with the best validation figure, the first of equal ones."""
    return int(max(curve, key=lambda point: point["ndcg@10"])["epoch"])


def train(stage: Stage, seed: int, is_over: Callable[[list[Point]], bool], name: str) -> tuple[list[Point], Ranks]:
    """Epoch by epoch, ranked after each, until it is over. The ranks are those after the last."""
    seed_everything(seed)
    model, data = SASRecModel(**SETTINGS), dataset(stage)
    curve: list[Point] = []
    seconds = 0.0
    while not curve or not is_over(curve):
        started = time.monotonic()
        model.fit_partial(data, min_epochs=1, max_epochs=1)
        seconds += time.monotonic() - started
        ranks = protocol.rank(stage, scorer(model, stage))
        curve.append({"epoch": len(curve) + 1, "seconds": round(seconds, 1), "ndcg@10": round(ranks.ndcg, 5)})
        print(f"{name} epoch {len(curve)}: ndcg@10 {ranks.ndcg:.4f} after {seconds:.0f} s", flush=True)
    return curve, ranks


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
