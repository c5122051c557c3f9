"""Metrics over a full ranking of the catalogue, one value per query.

First the targets of each query are given their ranks (`rank_targets`), then `measure` turns the ranks of all queries
into one vector per metric. The vectors are kept whole, so that two models measured on the same queries can be compared
in pairs. The second half looks past accuracy: how much of the catalogue is shown, how unusual it is, how varied.

Legend: q queries, t targets of one query, i items, n items of one slate, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endcap.core.errors import CallerError
from endcap.core.types import Float32Array, Int32Array, Int64Array

Float64Array = NDArray[np.float64]
NO_ITEMS = np.empty(0, np.int32)
CUTOFFS = (5, 10, 20)
# Below this, passing over the scores once a target is quicker than sorting them.
FEW_TARGETS = 32
AT_ONCE = 512


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Where one query's targets stand among the eligible items.

    ranks: int64 [t], 1-based, distinct, in the order the targets were given. ties: int64 [t], how many eligible items
    that are no targets share each target's score. n_eligible: items that could have been shown, targets included.

    Targets that no ranking could hold (`unreachable` below: unknown to the model, hidden by a rule) stand behind all
    the rest, and are found at no cutoff, be the catalogue as small as it may. They count in all fields, so recall and
    AUC pay for them. missed: how many they are, the last of `ranks`.
    """

    ranks: Int64Array
    ties: Int64Array
    n_eligible: int
    missed: int = 0


def rank_targets(
    scores: Float32Array, targets: Int32Array, excluded: Int32Array = NO_ITEMS, unreachable: int = 0
) -> Ranked:
    """Ranks from the scores float32 [i] of every item; `excluded` items are not eligible.

    Ties count against the model: a target stands behind every item of its score that is no target, so a single
    target's rank is one plus the other eligible items scored greater or equal. Targets that tie with each other take
    successive places, since no order of them is better than another.
    """
    _check_targets(targets, len(scores), unreachable)
    wanted = scores[targets]
    if np.isnan(scores.max(initial=0)):
        raise CallerError("The scores hold NaN.", where="rank_targets", next_step="Mend the model that gave them.")
    if len(excluded) and not 0 <= int(excluded.min()) <= int(excluded.max()) < len(scores):
        raise CallerError(
            "An excluded item is not in the catalogue.", where="rank_targets", next_step="Leave out unknown items."
        )
    if np.isin(targets, excluded).any():
        raise CallerError(
            "A target is excluded from the ranking, so it could never be found.",
            where="rank_targets",
            next_step="Take it out of `excluded`, or out of the targets and count it as unreachable.",
        )
    outside = np.unique(np.concatenate([targets, excluded]))
    n_eligible = len(scores) - (len(outside) - len(targets))
    return _followed(*_places(scores, wanted, scores[outside]), n_eligible, unreachable)


def rank_in_each(scores: Float32Array, targets: Int32Array, unreachable: int = 0) -> list[Ranked]:
    """`rank_targets` by several models at once, all items eligible. scores: float32 [m, i], a row a model."""
    _check_targets(targets, scores.shape[1], unreachable)
    if np.isnan(scores.max(initial=0)):
        raise CallerError("The scores hold NaN.", where="rank_in_each", next_step="Mend the model that gave them.")
    n = scores.shape[1]
    return [_followed(*_places(row, row[targets], row[targets]), n, unreachable) for row in scores]


def measure(queries: Sequence[Ranked], cutoffs: Sequence[int] = CUTOFFS) -> dict[str, Float64Array]:
    """One float64 [q] per metric, in the order of the queries.

    For each cutoff k: `precision@k` (hits / k), `recall@k` (hits / t), `f1@k` (their harmonic mean), `hit_rate@k`,
    `ndcg@k` (binary gains, discount 1 / log2(rank + 1), the ideal holds min(k, t) targets), `mrr@k` (0 where the
    first target is past k) and `map@k`. `map@k` divides by min(k, t), so that a perfect list scores 1; trec_eval
    divides by t. `auc` is the share of (target, non-target) pairs of the full ranking in the right order, ties
    counting half; 0.5 where every eligible item is a target.
    """
    if not queries:
        raise CallerError("There are no queries to measure.", where="measure", next_step="Check the evaluation window.")
    targets = np.array([len(query.ranks) for query in queries], np.int64)
    if not targets.all():
        raise CallerError("A query has no targets.", where="measure", next_step="Drop such queries and count them.")
    found = _found(queries, targets)
    measured: dict[str, Float64Array] = {}
    for k in cutoffs:
        measured |= _at(k, found)
    measured["auc"] = _auc(found, np.array([ranked.n_eligible for ranked in queries], np.int64))
    return measured


def coverage(slates: Sequence[Int32Array], n_items: int) -> float:
    """The share of the catalogue that appears in at least one slate."""
    shown = np.unique(np.concatenate(slates)) if len(slates) else NO_ITEMS
    return len(shown) / n_items


def novelty(slates: Sequence[Int32Array], counts: Int64Array) -> Float64Array:
    """float64 [q]: the mean self-information of each slate, -log2 of the item's share of all training events, in bits.

    counts: int64 [i], training events per item. An item never seen counts as seen once: no rarer than the rarest.
    An empty slate has 0 bits. (Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma".)
    """
    total = int(counts.sum())
    if total == 0:
        raise CallerError("No item was seen in training.", where="novelty", next_step="Pass the training counts.")
    bits = -np.log2(np.maximum(counts, 1) / total)
    return np.array([bits[slate].mean() if len(slate) else 0.0 for slate in slates])


def content_diversity(slates: Sequence[Int32Array], vectors: Float32Array) -> Float64Array:
    """float64 [q]: one minus the mean cosine between the items of each slate. vectors: float32 [i, d], any length.

    A zero vector has cosine 0 with all. Slates of fewer than two items have diversity 0.
    """
    sizes = np.array([len(slate) for slate in slates], np.int64)
    diversity = np.zeros(len(slates))
    for size in np.unique(sizes[sizes > 1]).tolist():
        alike = np.flatnonzero(sizes == size)
        for start in range(0, len(alike), AT_ONCE):
            part = alike[start : start + AT_ONCE]
            diversity[part] = _spread(vectors[np.stack([slates[place] for place in part])].astype(np.float64))
    return diversity


def category_diversity(slates: Sequence[Int32Array], categories: Sequence[Set[str]]) -> Float64Array:
    """float64 [q]: one minus the mean Jaccard overlap of the category sets of each slate's items.

    categories: one set per item. Two items without categories share nothing. Slates of fewer than two items have
    diversity 0.
    """
    return np.array([_distance([categories[item] for item in slate.tolist()]) for slate in slates])


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """All targets end to end, sorted by query and rank. query, ranks, ties, nth (its place among the query's targets,
    from 0): int64 [all targets]. reachable: bool [all targets]. targets: int64 [q], how many each query has."""

    query: Int64Array
    ranks: Int64Array
    reachable: NDArray[np.bool_]
    ties: Int64Array
    nth: Int64Array
    targets: Int64Array


def _found(queries: Sequence[Ranked], targets: Int64Array) -> _Found:
    query = np.repeat(np.arange(len(queries)), targets)
    ranks = np.concatenate([ranked.ranks for ranked in queries])
    ties = np.concatenate([ranked.ties for ranked in queries])
    last = np.array([ranked.n_eligible - ranked.missed for ranked in queries], np.int64)
    order = np.lexsort((ranks, query))
    nth = np.arange(len(ranks)) - np.repeat(np.cumsum(targets) - targets, targets)
    return _Found(query, ranks[order], (ranks <= last[query])[order], ties[order], nth, targets)


def _places(scores: Float32Array, wanted: Float32Array, outside: Float32Array) -> tuple[Int64Array, Int64Array]:
    """Ranks and ties of targets scored `wanted`, int64 [t] both. outside: the scores, among all, of what is left out:
    targets and excluded items."""
    at_least, greater = (
        everywhere - there
        for everywhere, there in zip(_reaching(scores, wanted), _reaching(outside, wanted), strict=True)
    )
    place = np.empty(len(wanted), np.int64)
    place[np.argsort(-wanted, kind="stable")] = np.arange(len(wanted))
    return 1 + at_least + place, at_least - greater


def _reaching(scores: Float32Array, wanted: Float32Array) -> tuple[Int64Array, Int64Array]:
    """How many of the scores are at least, and how many greater than, each wanted one: int64 [t] both."""
    if len(wanted) <= FEW_TARGETS:
        at_least = np.array([np.count_nonzero(scores >= score) for score in wanted], np.int64)
        equal = np.array([np.count_nonzero(scores == score) for score in wanted], np.int64)
        return at_least, at_least - equal
    ascending = np.sort(scores)
    return (
        len(scores) - np.searchsorted(ascending, wanted, side="left"),
        len(scores) - np.searchsorted(ascending, wanted, side="right"),
    )


def _followed(ranks: Int64Array, ties: Int64Array, n_eligible: int, unreachable: int) -> Ranked:
    """The ranks with those of the unreachable targets after them."""
    last = n_eligible + 1 + np.arange(unreachable)
    return Ranked(
        np.concatenate([ranks, last]).astype(np.int64),
        np.concatenate([ties, np.zeros(unreachable)]).astype(np.int64),
        n_eligible + unreachable,
        unreachable,
    )


def _check_targets(targets: Int32Array, n_items: int | None, unreachable: int) -> None:
    if not len(targets) and unreachable > 0:
        return
    if not len(targets):
        raise CallerError("A query has no targets.", next_step="Drop such queries and count them.")
    if len(np.unique(targets)) != len(targets):
        raise CallerError("A query names a target twice.", next_step="Pass distinct targets.")
    if targets.min() < 0 or (n_items is not None and targets.max() >= n_items):
        raise CallerError(
            "A target is not in the catalogue.", next_step="Restrict the targets to known items and count the rest."
        )


def _at(k: int, found: _Found) -> dict[str, Float64Array]:
    """The metrics of one cutoff."""
    inside = (found.ranks <= k) & found.reachable

    def total(values: Float64Array) -> Float64Array:
        return np.bincount(found.query[inside], values[inside], len(found.targets)).astype(np.float64)

    hits = total(np.ones(len(found.ranks)))
    best = np.minimum(found.targets, k)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])[best]
    return {
        f"precision@{k}": hits / k,
        f"recall@{k}": hits / found.targets,
        f"f1@{k}": 2 * hits / (k + found.targets),
        f"hit_rate@{k}": (hits > 0).astype(np.float64),
        f"ndcg@{k}": total(1 / np.log2(found.ranks + 1)) / ideal,
        f"mrr@{k}": total(np.where(found.nth == 0, 1 / found.ranks, 0.0)),
        f"map@{k}": total((found.nth + 1) / found.ranks) / best,
    }


def _auc(found: _Found, eligible: Int64Array) -> Float64Array:
    others = eligible - found.targets
    behind = others[found.query] - (found.ranks - 1 - found.nth) + found.ties / 2
    pairs = found.targets * others
    auc = np.full(len(pairs), 0.5)
    np.divide(np.bincount(found.query, behind, len(pairs)), pairs, out=auc, where=pairs > 0)
    return auc


def _spread(vectors: Float64Array) -> Float64Array:
    """float64 [q] of float64 [q, n, d]. Uses |sum v|^2 = n + sum over pairs, so that no pair is formed."""
    n = vectors.shape[1]
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    sum_of_pairs = np.square(unit.sum(axis=1)).sum(axis=1) - np.square(unit).sum(axis=(1, 2))
    spread: Float64Array = 1 - sum_of_pairs / (n * (n - 1))
    return spread


def _distance(sets: Sequence[Set[str]]) -> float:
    overlaps = list(_overlaps(sets))
    return 1 - sum(overlaps) / len(overlaps) if overlaps else 0.0


def _overlaps(sets: Sequence[Set[str]]) -> Iterator[float]:
    for place, left in enumerate(sets):
        for right in sets[:place]:
            either = len(left | right)
            yield len(left & right) / either if either else 0.0
