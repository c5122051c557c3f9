"""A small pipeline over twelve items and two sources, and shoppers who bought some of them."""

import numpy as np
import polars as pl
import pytest

from endcap.core.tables import EVENTS, ITEMS, conform
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.features.stats import ItemStats
from endcap.recommend.filters import Eligible
from endcap.recommend.hydrate import Hydrator
from endcap.recommend.pipeline import Pipeline
from endcap.recommend.select import Best
from endcap.testing import FakeSource
from endcap.testing.contexts import NOW_MS

N = 12


@pytest.fixture
def small_pipeline():
    """Makes one with whatever else `Pipeline` takes."""

    def make(**rest):
        ids = [f"i{place:02d}" for place in range(N)]
        table = ItemTable.build(conform(pl.DataFrame({"item_id": ids, "title": ids}), ITEMS))
        nothing = conform(pl.DataFrame(schema={"user_id": pl.String}), EVENTS).lazy()
        stats = ItemStats.build(Histories.build(nothing, table.ids), N, NOW_MS)
        scores = ([1.0] * 5 + [0.0] * (N - 5), np.linspace(1, 0, N).tolist())
        sources = [FakeSource(one, name) for one, name in zip(scores, ("first", "second"), strict=True)]
        return Pipeline(
            table=table,
            sources=sources,
            hydrator=Hydrator(table, stats, [source.name for source in sources]),
            scorer=None,
            filters=(Eligible(np.ones(N, bool)),),
            selectors=(Best(),),
            per_source=8,
            fallback=np.arange(N, dtype=np.int32)[::-1].copy(),
            sold=N,
            **rest,
        )

    return make
