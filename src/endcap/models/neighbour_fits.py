"""Fitting item-to-item matrices: item-kNN and EASE.

Legend: i items, n the rows counted over (baskets, or users where baskets hold a single item), X float32 [n, i] of ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from endcap.core.section import Section
from endcap.models.baskets import Baskets
from endcap.models.neighbours import NeighbourSource, keep_strongest

CHUNK = 2048
SEVERAL = 1.5


class NeighbourConfig(Section):
    neighbours: int = Field(100, ge=1, description="Entries kept for each item.")
    shrink: float = Field(5.0, ge=0, description="Added to the cosine's denominator, so that rare pairs count less.")
    ease_items: int = Field(4000, ge=1, description="EASE covers this many of the most bought items.")
    ease_neighbours: int = Field(300, ge=1, description="Entries EASE keeps for each item.")
    ease_l2: float = Field(300.0, gt=0, description="EASE's regularisation over users.")
    ease_basket_l2: float = Field(400.0, gt=0, description="EASE's regularisation over baskets.")


def fit_knn(baskets: Baskets, config: NeighbourConfig) -> sparse.csr_array:
    """Cosine of the items' columns of X with shrinkage: W_ij = |i and j| / (sqrt(|i| |j|) + shrink).

    Sarwar et al. 2001. X counts baskets where they hold more than one item, users otherwise.
    """
    counted = baskets.content if baskets.mean_size >= SEVERAL else baskets.by_user()
    sizes = np.sqrt(np.asarray(counted.sum(axis=0)).ravel())
    parts = []
    for rows, together in co_occurrence(counted, counted):
        coo = together.tocoo()
        values = coo.data / (sizes[coo.row + rows.start] * sizes[coo.col] + config.shrink)
        parts.append(_without_diagonal(coo, values, rows.start, config.neighbours))
    return _stack(parts, counted.shape[1])


def fit_ease(rows: sparse.csr_array, l2: float, config: NeighbourConfig) -> sparse.csr_array:
    """EASE (Steck 2019, eq. 8): B = I - P diag(1 / diag P) with P = (X'X + l2 I)^-1. rows: X, of users or of baskets.

    Departs from the paper in two ways, for memory: only the `ease_items` most frequent items take part, and only each
    row's largest positive entries are kept.
    """
    from scipy import linalg  # only to learn; it takes a while to import

    counts = np.asarray(rows.sum(axis=0)).ravel()
    chosen = np.sort(np.argsort(-counts, kind="stable")[: config.ease_items])
    chosen = chosen[counts[chosen] > 0]
    narrow = rows[:, chosen]
    gram: NDArray[np.float32] = (narrow.T @ narrow).toarray().astype(np.float32)
    gram[np.diag_indices_from(gram)] += l2
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
    weights = (-inverse / np.diag(inverse)).real.astype(np.float32)
    np.fill_diagonal(weights, 0)
    kept = keep_strongest(_strong_entries(weights, config.ease_neighbours), config.ease_neighbours).tocoo()
    n_items = rows.shape[1]
    return sparse.csr_array((kept.data, (chosen[kept.row], chosen[kept.col])), shape=(n_items, n_items))


def ease_sources(baskets: Baskets, config: NeighbourConfig) -> list[NeighbourSource]:
    """Over users, looked at from all they had; and, where baskets hold several items, over baskets from the cart."""
    found = [NeighbourSource.of("ease", fit_ease(baskets.by_user(), config.ease_l2, config), "everything")]
    if baskets.mean_size >= SEVERAL:
        matrix = fit_ease(baskets.content, config.ease_basket_l2, config)
        found.append(NeighbourSource.of("ease_cart", matrix, "cart"))
    return found


def knn_sources(baskets: Baskets, config: NeighbourConfig) -> list[NeighbourSource]:
    """The same matrix looked at from the cart, from everything bought, and, where baskets hold a single item, from the
    last act alone."""
    matrix = fit_knn(baskets, config)
    found = [NeighbourSource.of("together", matrix, "cart"), NeighbourSource.of("knn", matrix, "bought")]
    return found if baskets.mean_size >= SEVERAL else [*found, NeighbourSource.of("knn_last", matrix, "last")]


def co_occurrence(left: sparse.csr_array, right: sparse.csr_array) -> Iterator[tuple[range, sparse.csr_array]]:
    """Rows of left' right, a chunk of items at a time, so that the full product never stands in memory."""
    columns = left.tocsc()
    for start in range(0, left.shape[1], CHUNK):
        rows = range(start, min(start + CHUNK, left.shape[1]))
        yield rows, sparse.csr_array(columns[:, rows.start : rows.stop].T @ right)


def _without_diagonal(
    coo: sparse.coo_array, values: NDArray[np.float64], first_row: int, per_row: int
) -> sparse.csr_array:
    inside = coo.row + first_row != coo.col
    part = sparse.csr_array((values[inside], (coo.row[inside], coo.col[inside])), shape=coo.shape)
    return keep_strongest(part, per_row)


def _strong_entries(weights: NDArray[np.float32], per_row: int) -> sparse.csr_array:
    if weights.shape[1] <= per_row:
        return sparse.csr_array(weights)
    columns = np.argpartition(-weights, per_row - 1, axis=1)[:, :per_row]
    rows = np.repeat(np.arange(len(weights)), per_row)
    values = np.take_along_axis(weights, columns, axis=1).ravel()
    return sparse.csr_array((values, (rows, columns.ravel())), shape=weights.shape)


def _stack(parts: list[sparse.csr_array], n_items: int) -> sparse.csr_array:
    return sparse.csr_array(sparse.vstack(parts, format="csr")) if parts else sparse.csr_array((n_items, n_items))
