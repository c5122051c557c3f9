"""Alternating least squares of the library implicit (Hu, Koren and Volinsky 2008): a peer's script, see `contest`."""

from __future__ import annotations

from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from benchmarks.peers.contest import Settings, compete
from benchmarks.peers.factors import factor_scores, matrix
from benchmarks.peers.protocol import Score, Stage

CHOICES = {
    "factors": (128, 256, 512),
    "regularization": (0.01, 0.1, 1.0),
    "alpha": (4.0, 16.0, 40.0, 100.0),
    "iterations": (15,),
}


def fit(stage: Stage, settings: Settings, seed: int) -> Score:
    model = AlternatingLeastSquares(**settings, random_state=seed)
    # implicit has threads of its own, which those of BLAS would only disturb
    with threadpool_limits(1, "blas"):
        model.fit(matrix(stage), show_progress=False)
    return factor_scores(model.user_factors, model.item_factors)


if __name__ == "__main__":
    compete(fit, CHOICES)
