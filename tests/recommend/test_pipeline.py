"""What a slate promises, whatever the sources say: property-based, over random catalogues, histories and requests."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.core.tables import EVENTS, ITEMS, conform
from endcap.core.types import Candidates, Placement, Query
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.features.state import context
from endcap.features.stats import ItemStats
from endcap.recommend.candidates import Shortlist, shares
from endcap.recommend.explain import TEMPLATES
from endcap.recommend.filters import Eligible, InCategories, NotBought, NotExcluded
from endcap.recommend.hydrate import Hydrator
from endcap.recommend.pipeline import Pipeline
from endcap.recommend.select import Best
from endcap.testing.fakes import FakeSource

N = 12
IDS = [f"i{place:02d}" for place in range(N)]
SHELVES = ["tea", "milk", "soap"]
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


class Broken:
    def score(self, features, candidates):
        raise RuntimeError("the model file is damaged")


def make_pipeline(shown, scorer=None):
    frame = pl.DataFrame({"item_id": IDS, "title": IDS, "categories": [[SHELVES[p % 3]] for p in range(N)]})
    table = ItemTable.build(conform(frame, ITEMS))
    histories = Histories.build(conform(pl.DataFrame(schema={"user_id": pl.String}), EVENTS).lazy(), table.ids)
    stats = ItemStats.build(histories, N, NOW_MS)
    sources = [FakeSource([1.0] * 5 + [0.0] * (N - 5), "first"), FakeSource(np.linspace(1, 0, N).tolist(), "second")]
    return Pipeline(
        table=table,
        sources=sources,
        hydrator=Hydrator(table, stats, [source.name for source in sources]),
        scorer=scorer,
        filters=(Eligible(np.array(shown)), NotExcluded(table), NotBought(), InCategories(table)),
        selectors=(Best(),),
        per_source=4,
        fallback=np.arange(N, dtype=np.int32)[::-1].copy(),
        sold=N,
    )


def known(bought, cart, anchor, placement, pipeline):
    events = conform(
        pl.DataFrame(
            {
                "user_id": ["u"] * len(bought),
                "item_id": [IDS[item] for item in bought],
                "ts_ms": [NOW_MS - DAY_MS * (len(bought) - place) for place in range(len(bought))],
                "event_type": ["purchase"] * len(bought),
            },
            schema={"user_id": pl.String, "item_id": pl.String, "ts_ms": pl.Int64, "event_type": pl.String},
        ),
        EVENTS,
    )
    history = Histories.build(events.lazy(), pipeline.table.ids).of("u")
    return context(history, NOW_MS, placement, cart=np.array(cart, np.int32), anchor=anchor)


items = st.integers(0, N - 1)


@settings(max_examples=150, deadline=None)
@given(
    shown=st.lists(st.booleans(), min_size=N, max_size=N),
    bought=st.lists(items, max_size=6),
    cart=st.lists(items, max_size=3, unique=True),
    exclude=st.lists(items, max_size=4, unique=True),
    anchor=st.one_of(st.just(-1), items),
    placement=st.sampled_from(list(Placement)),
    category=st.one_of(st.none(), st.sampled_from(SHELVES)),
    hide=st.one_of(st.none(), st.booleans()),
    n=st.integers(1, N + 2),
)
def test_a_slate_keeps_its_promises(shown, bought, cart, exclude, anchor, placement, category, hide, n):
    pipeline = make_pipeline(shown)
    query = Query(
        placement=placement,
        n=n,
        exclude=tuple(IDS[item] for item in exclude),
        categories=() if category is None else (category,),
        hide_bought=hide,
    )
    slate, degraded = pipeline.answer(query, known(bought, cart, anchor, placement, pipeline))
    hidden = placement is Placement.DISCOVERY if hide is None else hide
    may_appear = {
        item
        for item in range(N)
        if shown[item]
        and item not in exclude
        and item not in cart
        and item != anchor
        and not (hidden and item in bought)
        and (category is None or SHELVES[item % 3] == category)
    }
    got = [IDS.index(entry.item_id) for entry in slate]
    assert set(got) <= may_appear
    assert len(got) == len(set(got)) == min(n, len(may_appear))
    assert all(entry.reason for entry in slate)
    assert degraded == ()
    again, _ = pipeline.answer(query, known(bought, cart, anchor, placement, pipeline))
    assert again == slate


def test_a_failing_ranker_gives_way_and_the_answer_says_so(caplog):
    pipeline = make_pipeline([True] * N, Broken())
    slate, degraded = pipeline.answer(Query(n=5), known([1, 2], [], -1, Placement.HOME, pipeline))
    assert len(slate) == 5
    assert degraded == ("ranker",)
    assert "RuntimeError" in caplog.text


def test_a_stranger_gets_what_sells():
    pipeline = make_pipeline([True] * N)
    slate, _ = pipeline.answer(Query(n=3), known([], [], -1, Placement.HOME, pipeline))
    assert [entry.item_id for entry in slate] == ["i11", "i10", "i09"]
    assert {entry.source for entry in slate} == {"popular"}


def test_what_was_never_sold_is_not_called_popular():
    pipeline = make_pipeline([True] * N)
    pipeline.sold = 2
    slate, _ = pipeline.answer(Query(n=3), known([], [], -1, Placement.HOME, pipeline))
    assert [entry.source for entry in slate] == ["popular", "popular", "range"]


@pytest.mark.parametrize("locale", ["en", "zh", "zh-CN", "fr"])
def test_reasons_are_sentences_in_the_shoppers_language(locale):
    pipeline = make_pipeline([True] * N)
    slate, _ = pipeline.answer(Query(n=1, locale=locale), known([], [], -1, Placement.HOME, pipeline))
    assert slate[0].reason == TEMPLATES["zh" if locale.startswith("zh") else "en"]["popular"]


def test_every_reason_exists_in_both_languages():
    assert TEMPLATES["en"].keys() == TEMPLATES["zh"].keys()


def test_features_have_a_name_each_and_are_numbers_or_missing():
    pipeline = make_pipeline([True] * N)
    shopper = known([1, 2, 1], [3], -1, Placement.CART, pipeline)
    candidates = pipeline.candidates([(Query(placement=Placement.CART), shopper)])[0]
    matrix = pipeline.hydrator.features(candidates, [shopper])
    assert matrix.shape == (len(candidates.items), len(pipeline.hydrator.names))
    assert len(set(pipeline.hydrator.names)) == len(pipeline.hydrator.names)
    assert not np.isinf(matrix).any()
    column = dict(zip(pipeline.hydrator.names, matrix.T, strict=True))
    row = int(np.flatnonzero(candidates.items == 1)[0])
    assert column["own_n"][row] == 2
    assert column["cart_size"][row] == 1
    assert column["user_baskets"][row] == 3


def test_a_failing_source_is_left_out_and_named(caplog):
    class Failing(FakeSource):
        def weigh(self, context):
            raise OSError("the file is gone")

    pipeline = make_pipeline([True] * N)
    pipeline.sources = (Failing([0.0] * N, "first"), pipeline.sources[1])
    slate, degraded = pipeline.answer(Query(n=5), known([1, 2], [], -1, Placement.HOME, pipeline))
    assert len(slate) == 5
    assert degraded == ("first",)
    assert "OSError" in caplog.text


SAID = Candidates.of(
    np.array([2, 3, 5, 8], np.int32), np.array([[4, 0], [2, 1], [1, 9], [0, -3]], np.float32), np.zeros((4, 2)), 4
)


def test_shares_are_of_the_sources_best():
    assert shares(SAID).tolist() == [[1, 0], [0.5, pytest.approx(1 / 9)], [0.25, 1], [0, pytest.approx(-1 / 3)]]


def test_the_shortlist_is_the_best_by_the_weights_in_the_order_of_items():
    assert Shortlist(2, {"a": 1.0}).of(SAID, ["a", "b"]).items.tolist() == [2, 3]
    assert Shortlist(2, {"b": 1.0, "gone": 9.0}).of(SAID, ["a", "b"]).items.tolist() == [3, 5]
    short = Shortlist(2, {"a": 0.5, "b": 0.5}).of(SAID, ["a", "b"])
    assert short.items.tolist() == [2, 5]
    assert short.scores.tolist() == [[4, 0], [1, 9]]
    assert short.best.tolist() == [[4, 9]]


def test_the_shortlist_bears_scores_that_are_next_to_nothing():
    scores = np.zeros((6, 2), np.float32)
    scores[:, 0], scores[4, 1] = np.arange(6), 1e-40
    said = Candidates.of(np.arange(6, dtype=np.int32), scores, np.zeros((6, 2), np.float32), 3)
    assert Shortlist(2, {"a": 0.5, "b": 0.5}).of(said, ["a", "b"]).items.tolist() == [4, 5]
    assert Shortlist(5, {"a": 0.5, "b": 0.5}).of(said, ["a", "b"]).items.tolist() == [1, 2, 3, 4, 5]


def test_the_shortlist_holds_as_many_as_are_asked_for():
    assert len(Shortlist(1, {"a": 1.0}).of(SAID, ["a", "b"], least=3).items) == 3
    assert Shortlist(9, {"a": 1.0}).of(SAID, ["a", "b"]) is SAID


def test_a_slate_may_be_longer_than_the_shortlist():
    pipeline = make_pipeline([True] * N)
    pipeline.shortlist = Shortlist(1, {"second": 1.0})
    slate, _ = pipeline.answer(Query(n=6), known([1], [], -1, Placement.HOME, pipeline))
    assert len(slate) == 6
