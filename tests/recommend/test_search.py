import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.core.tables import ITEMS, conform
from endcap.core.types import Context, Float32Array, Int32Array, Query
from endcap.features.items import ItemTable
from endcap.features.words import words_of
from endcap.index.exact import ExactIndex
from endcap.index.lexical import LexicalIndex
from endcap.recommend.filters import Eligible, InCategories, NotExcluded
from endcap.recommend.search import Searcher, by_sources
from endcap.testing import FakeEncoder, FakeSource, a_context, a_stranger

TITLES = ["oat milk", "almond milk", "running shoes", "walking shoes", "red shoes 42", "tea", "green tea", ""]
SHELVES = ["milk", "milk", "shoes", "shoes", "shoes", "tea", "tea", "tea"]
IDS = [f"i{place}" for place in range(len(TITLES))]
SYNONYMS = {"sneakers": "running shoes", "shoes": ""}


class Meanings(FakeEncoder):
    """Knows what a few words mean."""

    def encode(self, contents):
        return super().encode([SYNONYMS.get(content, content) for content in contents])


class Broken(FakeEncoder):
    def encode(self, contents):
        raise RuntimeError("the model file is damaged")


def searcher(shown: list[bool] | None = None, encoder: FakeEncoder | None = None, personal=None) -> Searcher:
    frame = pl.DataFrame({"item_id": IDS, "title": TITLES, "categories": [[shelf] for shelf in SHELVES]})
    table = ItemTable.build(conform(frame, ITEMS))
    encoder = Meanings() if encoder is None else encoder
    return Searcher(
        encoder=encoder,
        vectors=ExactIndex(FakeEncoder().encode(TITLES)),
        words=LexicalIndex.of([words_of(title) for title in TITLES]),
        filters=(Eligible(np.array(shown or [True] * len(TITLES))), NotExcluded(table), InCategories(table)),
        personal=personal or (lambda context, items: np.zeros(len(items), np.float32)),
    )


def titles(items: Int32Array) -> list[str]:
    return [TITLES[item] for item in items]


def test_what_is_meant_is_found_without_its_words() -> None:
    found = searcher().text(Query(n=3), a_stranger(), "sneakers")
    assert titles(found.items)[0] == "running shoes"
    assert found.ways[0] == ("meaning",)


def test_what_is_said_is_found_where_no_vector_knows_it() -> None:
    found = searcher().text(Query(n=2), a_stranger(), "42")
    assert "red shoes 42" in titles(found.items)


def test_both_ways_together_come_first() -> None:
    found = searcher().text(Query(n=8), a_stranger(), "green tea")
    assert titles(found.items)[0] == "green tea"
    assert found.ways[0] == ("words", "meaning")


def test_the_shopper_decides_between_equals() -> None:
    def likes_walking(context: Context, items: Int32Array) -> Float32Array:
        return (items == TITLES.index("walking shoes")).astype(np.float32)

    plain = searcher().text(Query(n=8), a_stranger(), "shoes")
    ours = searcher(personal=likes_walking).text(Query(n=8), a_stranger(), "shoes")
    assert titles(plain.items)[0] == "running shoes"
    assert titles(ours.items)[0] == "walking shoes"
    assert "shopper" in ours.ways[0]


def test_sources_speak_for_a_known_shopper_and_not_for_a_stranger() -> None:
    scores = [0.0] * len(TITLES)
    scores[3], scores[2] = 2.0, 1.0
    favour = by_sources([FakeSource(scores)], [1.0])
    items = np.array([2, 3, 4], np.int32)
    assert favour(a_context([0]), items).tolist() == [0.5, 1.0, 0.0]
    assert favour(a_stranger(), items).tolist() == [0, 0, 0]


def test_a_picture_is_searched_by_its_vector() -> None:
    vector = FakeEncoder().encode(["tea"])[0]
    assert titles(searcher().vector(Query(n=1), a_stranger(), vector).items) == ["tea"]


def test_an_encoder_that_fails_leaves_the_words() -> None:
    found = searcher(encoder=Broken()).text(Query(n=5), a_stranger(), "tea")
    assert found.degraded == ("meaning",)
    assert set(titles(found.items)) == {"tea", "green tea"}


@pytest.mark.parametrize("text", ["", "  ", "zeppelin", "!!!"])
def test_any_text_has_an_answer(text: str) -> None:
    found = searcher().text(Query(n=5), a_stranger(), text)
    assert len(found.items) == len(found.scores) == len(found.ways)


@given(
    shown=st.lists(st.booleans(), min_size=len(TITLES), max_size=len(TITLES)),
    exclude=st.sets(st.sampled_from(IDS)),
    shelves=st.sets(st.sampled_from(SHELVES)),
    text=st.sampled_from(["milk", "shoes", "green tea", "sneakers", "42"]),
    n=st.integers(1, 10),
)
@settings(max_examples=60, deadline=None)
def test_what_may_not_be_shown_is_never_found(shown, exclude, shelves, text, n) -> None:
    query = Query(n=n, exclude=tuple(exclude), categories=tuple(shelves))
    found = searcher(shown).text(query, a_stranger(), text).items.tolist()
    assert len(found) == len(set(found)) <= n
    for item in found:
        assert shown[item]
        assert IDS[item] not in exclude
        assert not shelves or SHELVES[item] in shelves
