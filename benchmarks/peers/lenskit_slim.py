"""Sparse linear methods (Ning and Karypis 2011) of the library LensKit: a peer's script, see `contest`.

Why this one: LensKit and Cornac both install cleanly. On the validation targets of Amazon Beauty, LensKit's SLIM
reached NDCG@10 .053 at a second a fit, its EASE .052 at 50 s, its item-kNN .040. Cornac's item-kNN averages over
neighbours, so that on purchases without ratings everything ties (.000), and it scored 27 users a second. RePlay's
classical models are an extra that wants Spark, and its transformers would be SASRec once more.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from lenskit.data import from_interactions_df
from lenskit.knn.slim import SLIMScorer
from lenskit.training import TrainingOptions

from benchmarks.peers.contest import Settings, compete
from benchmarks.peers.factors import matrix
from benchmarks.peers.protocol import Float32Array, Int64Array, Score, Stage

CHOICES = {
    "l1_reg": (0.03, 0.1, 0.3, 0.5, 1.0, 2.0),
    "l2_reg": (1.0, 5.0, 20.0, 50.0, 100.0, 200.0),
}


def fit(stage: Stage, settings: Settings, seed: int) -> Score:
    """There is nothing random in it. Scores are taken from its weights, many users at once."""
    users, items = stage.pairs()
    model = SLIMScorer(**settings)
    model.train(from_interactions_df(pd.DataFrame({"user_id": users, "item_id": items})), TrainingOptions())
    known = np.asarray(model.items.ids())
    histories = (matrix(stage)[:, known] > 0).astype(np.float32)

    def score(asked: Int64Array) -> Float32Array:
        scores = np.zeros((len(asked), len(stage.known)), np.float32)
        scores[:, known] = (histories[asked] @ model.weights).toarray()
        return scores

    return score


if __name__ == "__main__":
    compete(fit, CHOICES)
