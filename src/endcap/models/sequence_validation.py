"""How well a sequence model tells what came next, and what is held out of histories to ask it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from endcap.core.types import Int64Array
from endcap.models.sequence import SequenceModel, UserTower
from endcap.models.windows import Sequences

SCORED_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Histories and what came after them: user u's targets are targets[offsets[u]:offsets[u + 1]].

    targets: int64, distinct within a user. hide_seen: whether items of a user's own history leave the ranking.
    """

    contexts: Sequences
    targets: Int64Array
    offsets: Int64Array
    hide_seen: bool = False


def ndcg(model: SequenceModel, validation: Validation, k: int = 10, most_users: int | None = None) -> float:
    """Mean NDCG@k over users who have targets (`most_users` of them, evenly spaced), all items ranked.

    DCG = sum of 1 / log2(rank + 1) over the targets among the first k; divided by that of an ideal ranking.
    """
    tower = UserTower(model).eval()
    histories = validation.contexts.last(model.config.max_len)
    counts = np.diff(validation.offsets)
    gains = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate(([np.inf], np.cumsum(gains)))[np.minimum(counts, k)]
    users = np.flatnonzero(counts)
    if most_users is not None and len(users) > most_users:
        users = users[np.linspace(0, len(users) - 1, most_users).astype(np.int64)]
    k = min(k, model.n_items)
    total = 0.0
    for start in range(0, len(users), SCORED_AT_ONCE):
        part = users[start : start + SCORED_AT_ONCE]
        with torch.inference_mode():
            scores = tower(torch.from_numpy(histories[part])) @ tower.table.T
            if validation.hide_seen:
                _hide(scores, validation.contexts, part)
            best = scores.topk(k, dim=1).indices.numpy()
        for user, ranked in zip(part, best, strict=True):
            wanted = validation.targets[validation.offsets[user] : validation.offsets[user + 1]]
            total += float(gains[:k][np.isin(ranked, wanted)].sum() / ideal[user])
    return total / len(users) if len(users) else 0.0


def _hide(scores: Tensor, contexts: Sequences, users: Int64Array) -> None:
    for row, user in enumerate(users):
        seen = contexts.items[contexts.offsets[user] : contexts.offsets[user + 1]]
        scores[row, torch.from_numpy(seen).long()] = -torch.inf
