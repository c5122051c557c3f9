"""The transition graph: what is bought after what.

Legend: b baskets in the order of user and time, i items, X float32 [b, i] of ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field
from scipy import sparse

from endcap.core.section import Section
from endcap.core.types import Context, Evidence, Reason
from endcap.models.baskets import Baskets
from endcap.models.neighbour_fits import co_occurrence
from endcap.models.neighbours import NeighbourSource, keep_strongest

BREADTH = 50


class TransitionConfig(Section):
    distance_weights: tuple[float, ...] = Field(
        (7.0, 2.0, 1.0), description="What a step of one, two, three ... baskets adds to an edge."
    )
    backward: float = Field(0.5, ge=0, description="Share of that which the edge the other way gets.")
    neighbours: int = Field(200, ge=1, description="Edges kept from each item.")


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


def transition_source(baskets: Baskets, config: TransitionConfig) -> NeighbourSource:
    return NeighbourSource.of("transitions", fit_transitions(baskets, config), "recent")


class SecondHop:
    """What follows the items that follow the shopper's own: the graph's best `BREADTH`, each looked from in turn as
    hard as it was favoured. Reaches items that nobody bought right after any of the shopper's."""

    name = "second_hop"

    def __init__(self, graph: NeighbourSource) -> None:
        self.graph = graph

    def weigh(self, context: Context) -> Evidence:
        return self.graph.spread(*self.graph.weigh(context).top(BREADTH))

    def explain(self, context: Context, item: int) -> Reason | None:
        """Because of what led to the step between, for which any that leads on to the item will do."""
        for step in self.graph.weigh(context).top(BREADTH)[0].tolist():
            if self.graph.spread(np.array([step], np.int32), np.ones(1, np.float32)).at(np.array([item]))[0] > 0:
                reason = self.graph.explain(context, step)
                return Reason(self.name, "transitions", because=reason.because) if reason else None
        return None

    def save(self, folder: Path) -> None:
        self.graph.save(folder)

    @classmethod
    def load(cls, folder: Path) -> SecondHop:
        return cls(NeighbourSource.load(folder))


def _apart(baskets: Baskets, distance: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Two matrices whose equal rows are one user's baskets `distance` apart: the earlier and the later."""
    earlier = np.flatnonzero(baskets.users[:-distance] == baskets.users[distance:])
    return baskets.content[earlier], baskets.content[earlier + distance]


def _divide_by_maximum(edges: sparse.csr_array) -> sparse.csr_array:
    highest = np.asarray(edges.max(axis=1).todense()).ravel()
    edges.data /= np.repeat(highest, np.diff(edges.indptr))
    return edges
