"""Every torch-free candidate source: the conformance suite, hand-computed scores, and reasons."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from endcap.core.tables import EVENTS, ITEMS, conform
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.index.exact import ExactIndex
from endcap.models.baskets import Baskets
from endcap.models.buy_again import BuyAgain, BuyAgainConfig, PersonalFrequency
from endcap.models.content import ContentSource, alike, reduce
from endcap.models.neighbour_fits import NeighbourConfig, ease_sources, fit_ease, fit_knn, knn_sources
from endcap.models.neighbours import NeighbourSource, keep_strongest
from endcap.models.popularity import (
    CategoryPopularity,
    Popularity,
    PopularityConfig,
    fit_category_popularity,
    fit_popularity,
)
from endcap.models.shoppers import ShopperConfig, SimilarShoppers, fit_shoppers
from endcap.models.transitions import (
    TransitionConfig,
    borrow_edges,
    fit_second_hop,
    fit_transitions,
    transition_sources,
)
from endcap.models.words import WordsConfig, fit_words, word_source
from endcap.testing import BulkSourceConformance, CandidateSourceConformance, a_context, a_stranger

DAY_MS = 86_400_000
N = 5
# three shoppers; baskets are days; items 0..4, of which nobody bought 4
BOUGHT = [
    ("ann", 0, 0), ("ann", 0, 1), ("ann", 1, 2), ("ann", 2, 0),
    ("bob", 0, 0), ("bob", 0, 1), ("bob", 1, 3),
    ("cat", 0, 1), ("cat", 0, 3),
]  # fmt: skip
UNTIL_MS = 10 * DAY_MS


@pytest.fixture(scope="module")
def table():
    paths = [["food", "tea"], ["food", "tea"], ["food", "milk"], ["home"], []]
    return ItemTable.build(conform(pl.DataFrame({"item_id": list("abcde"), "categories": paths}), ITEMS))


@pytest.fixture(scope="module")
def histories(table):
    frame = pl.DataFrame(
        [(user, day * DAY_MS, "abcde"[item], f"{user}{day}", "purchase") for user, day, item in BOUGHT],
        schema=["user_id", "ts_ms", "item_id", "session_id", "event_type"],
        orient="row",
    )
    return Histories.build(conform(frame, EVENTS).lazy(), table.ids)


@pytest.fixture(scope="module")
def baskets(histories):
    return Baskets.build(histories, N)


VECTORS = np.eye(N, 3, dtype=np.float32) + 0.1
VECTORS[4] = 0
TITLES = ["red wool hat", "red scarf", "wool scarf", "green tea", "green tea pot", ""]


def build(kind, histories, baskets, table):
    config, popularity = NeighbourConfig(shrink=0, ease_items=4, ease_l2=1.0), PopularityConfig()
    return {
        "popular": lambda: fit_popularity(histories, N, UNTIL_MS, popularity)[0],
        "trending": lambda: fit_popularity(histories, N, UNTIL_MS, popularity)[1],
        "newcomers": lambda: fit_popularity(histories, N, UNTIL_MS, popularity)[2],
        "category": lambda: fit_category_popularity(histories, table, UNTIL_MS, popularity),
        "buy_again": lambda: BuyAgain(BuyAgainConfig()),
        "together": lambda: knn_sources(baskets, config)[0],
        "knn": lambda: knn_sources(baskets, config)[1],
        "ease": lambda: ease_sources(baskets, config)[0],
        "ease_cart": lambda: ease_sources(baskets, config)[1],
        "transitions": lambda: transition_sources(baskets, TransitionConfig(), set())[0],
        "words": lambda: word_source(TITLES, WordsConfig()),
        "shoppers": lambda: fit_shoppers(histories, N, UNTIL_MS, ShopperConfig()),
        "content": lambda: ContentSource.of(VECTORS, ExactIndex),
    }[kind]()


LOADERS = {
    "popular": Popularity.load,
    "trending": Popularity.load,
    "newcomers": Popularity.load,
    "category": CategoryPopularity.load,
    "buy_again": BuyAgain.load,
    "together": NeighbourSource.load,
    "knn": NeighbourSource.load,
    "ease": NeighbourSource.load,
    "ease_cart": NeighbourSource.load,
    "transitions": NeighbourSource.load,
    "words": NeighbourSource.load,
    "shoppers": SimilarShoppers.load,
    "content": lambda folder: ContentSource.load(folder, ExactIndex),
}


class OfAKind:
    """A source of the kind that a test is told, of the small shop."""

    n_items = N

    @pytest.fixture(autouse=True)
    def _shop(self, kind, histories, baskets, table):
        self.kind, self.parts = kind, (histories, baskets, table)

    def make(self):
        return build(self.kind, *self.parts)

    def load(self, folder):
        return LOADERS[self.kind](folder)


@pytest.mark.parametrize("kind", sorted(LOADERS))
class TestEverySource(OfAKind, CandidateSourceConformance):
    pass


BULK = [kind for kind in sorted(LOADERS) if LOADERS[kind] == NeighbourSource.load or kind == "content"]


@pytest.mark.parametrize("kind", BULK)
class TestManyAtOnce(OfAKind, BulkSourceConformance):
    def test_nobody_is_told_nothing(self):
        assert self.make().weigh_many([]) == []


def dense(matrix):
    return np.asarray(matrix.todense())


def test_baskets_are_orders_in_the_order_of_user_and_time(baskets):
    assert dense(baskets.content).astype(int).tolist() == [
        [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 1, 0]
    ]  # fmt: skip
    assert baskets.users.tolist() == [0, 0, 0, 1, 1, 2]
    assert dense(baskets.by_user()).sum(axis=0).tolist() == [2, 3, 1, 2, 0]


def test_knn_is_the_cosine_of_baskets(baskets):
    matrix = dense(fit_knn(baskets, NeighbourConfig(shrink=0)))
    assert matrix[0, 1] == pytest.approx(2 / np.sqrt(3 * 3))
    assert matrix[1, 3] == pytest.approx(1 / np.sqrt(3 * 2))
    assert matrix[0, 0] == matrix[0, 2] == 0


def test_knn_counts_users_where_baskets_hold_one_item(table):
    frame = pl.DataFrame(
        [("u", 1, "a"), ("u", 2, "b"), ("v", 1, "a")], schema=["user_id", "ts_ms", "item_id"], orient="row"
    ).with_columns(event_type=pl.lit("purchase"))
    singles = Baskets.build(Histories.build(conform(frame, EVENTS).lazy(), table.ids), N)
    assert dense(fit_knn(singles, NeighbourConfig(shrink=0)))[0, 1] == pytest.approx(1 / np.sqrt(2))


def test_ease_agrees_with_the_closed_form(baskets):
    rows = baskets.by_user()
    found = dense(fit_ease(rows, 2.0, NeighbourConfig(ease_items=4)))
    dense_rows = dense(rows)[:, :4]
    inverse = np.linalg.inv(dense_rows.T @ dense_rows + 2 * np.eye(4))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found[:4, :4], np.maximum(expected, 0), atol=1e-5)


def test_transitions_by_hand(baskets):
    """ann: {0,1} -> {2} -> {0}; bob: {0,1} -> {3}. One step forward 7, two 2; the other way half."""
    matrix = dense(fit_transitions(baskets, TransitionConfig()))
    forward = {2: 7 + 3.5, 3: 7.0}  # 0 -> 2 once forward and once backward (2 -> 0), 0 -> 3 once
    expected = {item: np.log1p(weight) / np.log1p(10.5) for item, weight in forward.items()}
    assert matrix[0, 2] == pytest.approx(expected[2])
    assert matrix[0, 3] == pytest.approx(expected[3])
    assert matrix[3, 0] == pytest.approx(1)
    assert matrix[0, 0] == 0


def test_popularity_counts_baskets_and_lately_halves_them(histories):
    ever, lately, newcomers = fit_popularity(histories, N, UNTIL_MS, PopularityConfig(half_life_days=1))
    np.testing.assert_allclose(np.expm1(ever.scores), [3, 3, 1, 2, 0], rtol=1e-6)
    np.testing.assert_allclose(
        np.expm1(newcomers.scores), [2 * 0.5**10, 3 * 0.5**10, 0.5**9, 0.5**10 + 0.5**9, 0], rtol=1e-5
    )
    np.testing.assert_allclose(
        np.expm1(lately.scores), [2 * 0.5**10 + 0.5**8, 3 * 0.5**10, 0.5**9, 0.5**10 + 0.5**9, 0], rtol=1e-5
    )


def test_category_is_interest_times_share_within_it(histories, table):
    source = fit_category_popularity(histories, table, UNTIL_MS, PopularityConfig(half_life_days=1e9))
    scores = source.weigh(a_context([0, 0, 3])).at(np.arange(N, dtype=np.int32))
    assert scores[3] == pytest.approx(1 / 3, abs=0.01)
    assert scores[0] == scores[1] == pytest.approx(1 / 3, abs=0.01)
    assert scores[2] == scores[4] == 0


def test_buy_again_halves_with_age_and_names_the_rhythm():
    source = BuyAgain(BuyAgainConfig(half_life_days=1, steadiest=1))  # without the sense of time
    known = a_context([2, 1, 2, 2])  # 4, 3, 2 and 1 days ago
    np.testing.assert_allclose(
        source.weigh(known).at(np.array([2, 1, 0], np.int32)), [1 / 16 + 1 / 4 + 1 / 2, 1 / 8, 0]
    )
    assert source.explain(known, 2).values["days"] == 2  # (4 - 1) / 2 gaps = 1.5, rounded to even
    assert source.explain(known, 1).code == "bought_before"
    assert source.explain(known, 0) is None


def test_personal_frequency_puts_the_popular_first_among_equals():
    popularity = np.array([1, 5, 2, 9, 0], np.float32)
    items, _ = PersonalFrequency(popularity).weigh(a_context([0, 1, 2, 0])).top(5)
    assert items.tolist() == [0, 1, 2, 3]


def test_similar_shoppers_buy_what_the_neighbour_bought_and_not_for_oneself(histories):
    source = fit_shoppers(histories, N, UNTIL_MS, ShopperConfig())
    everything = np.arange(N, dtype=np.int32)
    stranger = source.weigh(a_context([0, 1], now_ms=UNTIL_MS)).at(everything)
    assert stranger[2] > 0
    assert stranger[4] == 0
    import dataclasses

    ann = dataclasses.replace(a_context([0, 1, 2], now_ms=UNTIL_MS), row=histories.users.position("ann"))
    assert source.weigh(ann).at(everything)[2] == 0  # ann alone bought 2


def test_reasons_name_the_item_that_led_there(baskets):
    together = knn_sources(baskets, NeighbourConfig())[0]
    assert together.explain(a_context(cart=[0]), 1).because == 0
    assert together.explain(a_context(cart=[0]), 4) is None
    assert together.explain(a_stranger(), 1) is None


def test_reduce_keeps_neighbours_and_leaves_empty_rows_empty():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(40, 12)), np.zeros((1, 12))]).astype(np.float32)
    reduced = reduce(vectors, 12)
    centred = vectors[:40] - vectors[:40].mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(reduced[:40] @ reduced[:40].T, unit @ unit.T, atol=1e-4)
    assert not reduced[40].any()
    assert reduce(vectors, 3).shape == (41, 3)


def test_items_alike_share_what_follows_and_what_precedes():
    """1 follows 0. The new 2 is like 0, the new 3 like 1; 4 is like nothing."""
    edges = sparse.csr_array(([1.0], ([0], [1])), shape=(5, 5), dtype=np.float32)
    vectors = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    like = alike(vectors, 2, ExactIndex)
    assert dense(like).tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0] * 5]
    found = dense(borrow_edges(edges, like, TransitionConfig(borrowed=0.5)))
    assert found.tolist() == [[0, 1, 0, 0.5, 0], [0] * 5, [0, 1, 0, 0, 0], [0] * 5, [0] * 5]


def test_likeness_is_shared_out_by_cosine():
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [-1, 0]], np.float32)
    like = dense(alike(vectors, 2, ExactIndex))
    assert like[0] == pytest.approx([0, 0.8 / 1.4, 0.6 / 1.4, 0])
    assert like[3].tolist() == [0, 0, 0, 0]


def test_the_second_hop_reaches_what_follows_what_follows():
    # 0 -> 1 -> 2, and 3 on its own
    edges = sparse.csr_array(([0.5, 0.8], ([0, 1], [1, 2])), shape=(4, 4), dtype=np.float32)
    hop = NeighbourSource.of("second_hop", fit_second_hop(edges, TransitionConfig()), "recent")
    items, scores = hop.weigh(a_context([0])).top(4)
    assert items.tolist() == [2]
    assert scores.tolist() == pytest.approx([np.log1p(0.4)])
    assert hop.explain(a_context([0]), 2).because == 0
    assert hop.explain(a_context([0]), 3) is None


def test_the_second_hop_steps_along_the_strongest_edges_and_never_back_to_where_it_began():
    edges = sparse.csr_array(([0.9, 0.5, 1, 1, 1], ([0, 0, 1, 1, 2], [1, 2, 0, 3, 4])), shape=(5, 5), dtype=np.float32)
    reached = fit_second_hop(edges, TransitionConfig(hop_breadth=1)).toarray()[0]
    assert np.flatnonzero(reached).tolist() == [3]


def test_one_item_baskets_have_a_last_item_and_fuller_ones_have_not(baskets):
    def names(found):
        return [source.name for source in transition_sources(found, TransitionConfig(), {"second_hop"})]

    single = replace(baskets, content=sparse.csr_array(np.eye(baskets.content.shape[0], N, dtype=np.float32)))
    full = sparse.csr_array(np.ones(baskets.content.shape, np.float32))
    assert names(single) == ["transitions", "transitions_last", "second_hop"]
    assert names(replace(baskets, content=full)) == ["transitions"]


def test_shared_words_are_the_rarer_the_better():
    near = fit_words(["acme red soap", "acme red cream", "zest red soap", "zest blue oil"], WordsConfig()).toarray()
    assert near[0, 1] > 0
    assert near[2, 3] > 0
    # "red" stands in three of the four titles, "acme" in two
    assert near[0, 1] > near[1, 2] > 0
    assert near[0, 3] == 0
    assert not near.diagonal().any()
    np.testing.assert_allclose(near, near.T, atol=1e-6)


def test_titles_without_a_common_word_have_no_neighbours():
    assert fit_words(["one", "two", ""], WordsConfig()).nnz == 0
    assert fit_words(["a b", "a c", "a d"], WordsConfig(common=2)).nnz == 0


def test_the_strongest_of_a_row_are_kept_and_equal_ones_by_column():
    matrix = sparse.csr_array(np.array([[0, 2, 3, 2, 2], [-1, 0, 0, 0, 5]], np.float32))
    assert keep_strongest(matrix, 2).toarray().tolist() == [[0, 2, 3, 0, 0], [0, 0, 0, 0, 5]]
