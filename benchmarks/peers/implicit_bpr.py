"""Bayesian personalised ranking of the library implicit (Rendle et al. 2009): a peer's script, see `contest`."""

from __future__ import annotations

from implicit.cpu.bpr import BayesianPersonalizedRanking

from benchmarks.peers.contest import Settings, compete
from benchmarks.peers.factors import factor_scores, matrix
from benchmarks.peers.protocol import Score, Stage

CHOICES = {
    "factors": (128, 256),
    "learning_rate": (0.05, 0.1, 0.2),
    "regularization": (0.003, 0.01, 0.03),
    "iterations": (100, 300),
}


def fit(stage: Stage, settings: Settings, seed: int) -> Score:
    model = BayesianPersonalizedRanking(**settings, random_state=seed)
    model.fit(matrix(stage), show_progress=False)
    return factor_scores(model.user_factors, model.item_factors)


if __name__ == "__main__":
    compete(fit, CHOICES)
