"""The transition graph: what is bought after what.

Legend: b baskets in the order of user and time, i items, X float32 [b, i] of ones.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from pydantic import Field
from scipy import sparse

from endcap.core.section import Section
from endcap.models.baskets import Baskets
from endcap.models.neighbour_fits import CHUNK, SEVERAL, co_occurrence
from endcap.models.neighbours import NeighbourSource, keep_strongest


class TransitionConfig(Section):
    distance_weights: tuple[float, ...] = Field(
        (7.0, 2.0, 1.0), description="What a step of one, two, three ... baskets adds to an edge."
    )
    backward: float = Field(0.5, ge=0, description="Share of that which the edge the other way gets.")
    neighbours: int = Field(200, ge=1, description="Edges kept from each item.")
    borrowed: float = Field(
        0.0, ge=0, description="Weight of the edges that an item borrows from items alike by content; 0 borrows none."
    )
    alike: int = Field(10, ge=1, description="Items alike that edges are borrowed from.")
    hop_breadth: int = Field(50, ge=1, description="Edges of an item that the second hop steps along first.")
    hop_neighbours: int = Field(300, ge=1, description="Edges of two steps kept from each item.")


def fit_transitions(baskets: Baskets, config: TransitionConfig) -> sparse.csr_array:
    """Edges G_ij = log(1 + sum over distances d of w_d x |i, then j, d baskets later|), divided by the row's maximum.

    With baskets of one item this counts pairs within a sequence; the reverse direction adds `backward` times as much.
    """
    pairs = [_apart(baskets, distance + 1) for distance in range(len(config.distance_weights))]
    parts = []
    steps = zip(
        *(co_occurrence(before, after) for before, after in pairs),
        *(co_occurrence(after, before) for before, after in pairs),
        strict=True,
    )
    scale = [*config.distance_weights, *(weight * config.backward for weight in config.distance_weights)]
    for chunk in steps:
        summed = sum((weight * part for weight, (_, part) in zip(scale, chunk, strict=True) if weight > 0), start=0)
        coo = sparse.coo_array(summed)
        inside = coo.row + chunk[0][0].start != coo.col
        edges = sparse.csr_array((np.log1p(coo.data[inside]), (coo.row[inside], coo.col[inside])), shape=coo.shape)
        parts.append(_divide_by_maximum(keep_strongest(edges, config.neighbours)))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def borrow_edges(graph: sparse.csr_array, alike: sparse.csr_array, config: TransitionConfig) -> sparse.csr_array:
    """G + `borrowed` (S G + G S'), divided by the row's maximum: an item goes on to where items alike go on to, and is
    come to from where they are come to from. alike: S float32 [i, i], rows that add up to 1 (`content.alike`). For
    items with few edges of their own, or none."""
    parts = []
    for start in range(0, graph.shape[0], CHUNK):
        own = graph[start : start + CHUNK]
        coo = sparse.coo_array(own + config.borrowed * (alike[start : start + CHUNK] @ graph + own @ alike.T))
        inside = coo.row + start != coo.col
        part = sparse.csr_array((coo.data[inside], (coo.row[inside], coo.col[inside])), shape=coo.shape)
        parts.append(_divide_by_maximum(keep_strongest(part, config.neighbours)))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def fit_second_hop(graph: sparse.csr_array, config: TransitionConfig) -> sparse.csr_array:
    """H = log(1 + G G) without the diagonal: what follows the items that follow an item. Reaches items that nobody
    bought right after it. Only the strongest `hop_breadth` edges of an item are stepped along first."""
    first = keep_strongest(graph, config.hop_breadth)
    parts = []
    for start in range(0, graph.shape[0], CHUNK):
        coo = sparse.coo_array(first[start : start + CHUNK] @ graph)
        inside = coo.row + start != coo.col
        part = sparse.csr_array((np.log1p(coo.data[inside]), (coo.row[inside], coo.col[inside])), shape=coo.shape)
        parts.append(keep_strongest(part, config.hop_neighbours))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def transition_sources(
    baskets: Baskets, config: TransitionConfig, wanted: Set[str], alike: sparse.csr_array | None = None
) -> list[NeighbourSource]:
    """The graph looked at from the recent acts; where baskets hold a single item, so that their order means something,
    also from the last alone, and its second hop. alike: see `borrow_edges`; None borrows none."""
    graph = fit_transitions(baskets, config)
    if alike is not None:
        graph = borrow_edges(graph, alike, config)
    found = [NeighbourSource.of("transitions", graph, "recent")]
    if baskets.mean_size < SEVERAL:
        found.append(NeighbourSource.of("transitions_last", graph, "last"))
        if "second_hop" in wanted:
            found.append(NeighbourSource.of("second_hop", fit_second_hop(graph, config), "recent"))
    return found


def _apart(baskets: Baskets, distance: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Two matrices whose equal rows are one user's baskets `distance` apart: the earlier and the later."""
    earlier = np.flatnonzero(baskets.users[:-distance] == baskets.users[distance:])
    return baskets.content[earlier], baskets.content[earlier + distance]


def _divide_by_maximum(edges: sparse.csr_array) -> sparse.csr_array:
    highest = np.asarray(edges.max(axis=1).todense()).ravel()
    edges.data /= np.repeat(highest, np.diff(edges.indptr))
    return edges
