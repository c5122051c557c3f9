from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endcap.core.errors import CallerError
from endcap.core.tables import ITEMS, conform
from endcap.core.types import Context, Float32Array, Int32Array, Query
from endcap.features.items import ItemTable
from endcap.features.words import words_of
from endcap.index.exact import ExactIndex
from endcap.index.lexical import LexicalIndex
from endcap.recommend.filters import Eligible, InCategories, NotExcluded
from endcap.recommend.search import Searcher, by_sources
from endcap.recommend.sights import Described, Sights
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


class Eye(FakeEncoder):
    """Sees in a picture what is written on it."""

    def encode(self, contents):
        return super().encode([content.decode() for content in contents])


def seeing(pictures: dict[str, str], words: dict[str, float] | None = None, bonus: dict[str, float] | None = None):
    """pictures: title -> what its photos show, with commas between. words: title -> the cosine of its words with the
    picture "tea"."""
    shown = [(TITLES.index(title), what) for title, each in pictures.items() for what in each.split(",")]
    items = np.array([item for item, _ in shown], np.int32)
    photos = FakeEncoder().encode([what for _, what in shown]).reshape(-1, 16)
    tea, vectors = FakeEncoder().encode(["tea"])[0], np.zeros((len(TITLES), 17), np.float32)
    for title, cosine in (words or {}).items():
        vectors[TITLES.index(title)] = np.append(cosine * tea, (bonus or {}).get(title, 0))
    wordless = np.array([not title for title in TITLES])
    alone = np.flatnonzero(wordless[items]).astype(np.int32)
    described = Described(ExactIndex(vectors), wordless, alone, np.zeros(len(alone), np.float32))
    unseen = np.bincount(items, minlength=len(TITLES)) == 0
    found, own = searcher(), photos.astype(np.float16)
    found.sights = Sights(Eye(), items, own, ExactIndex(photos), lambda seen: seen, unseen, described)
    return found


def test_a_picture_finds_what_looks_like_it_and_what_its_words_say() -> None:
    asked = seeing({"oat milk": "tea"}, {"oat milk": 0.9, "green tea": 0.8})
    found = asked.picture(Query(n=4), a_stranger(), b"tea")
    assert titles(found.items) == ["oat milk", "green tea"]
    assert found.ways == [("picture", "meaning"), ("meaning",)]
    assert titles(asked.picture(Query(n=4, exclude=("i0",)), a_stranger(), b"tea").items) == ["green tea"]


def test_words_of_familiar_products_are_discounted_for_pictures() -> None:
    words = {"tea": 0.8, "running shoes": 0.6}
    assert titles(seeing({}, words).picture(Query(n=1), a_stranger(), b"tea").items) == ["tea"]
    discounted = seeing({}, words, {"running shoes": 0.4})
    assert titles(discounted.picture(Query(n=1), a_stranger(), b"tea").items) == ["running shoes"]


class Unasked(ExactIndex):
    def search(self, vector, k):
        raise AssertionError("all photos are gone through for the few of items without words")


def test_words_find_what_has_a_picture_and_no_words() -> None:
    asked = seeing({"": "boots,sandals", "tea": "sandals"})
    asked.sights = replace(asked.sights, photos=Unasked(FakeEncoder().encode(["boots", "sandals", "sandals"])))
    found = asked.text(Query(n=8), a_stranger(), "sandals")
    ways = dict(zip(titles(found.items), found.ways, strict=True))
    assert ways[""] == ("depicted",)
    assert "depicted" not in ways.get("tea", ())


def test_what_looks_the_same_comes_first_whatever_its_words_say() -> None:
    words = {title: 0.9 - 0.05 * place for place, title in enumerate(TITLES[:6])}  # oat milk first, tea last
    asked = seeing({"tea": "tea", "oat milk": "milk", "almond milk": "milk 2"}, words)
    assert titles(asked.picture(Query(n=1), a_stranger(), b"tea").items) == ["tea"]


def test_the_very_picture_may_be_one_of_several() -> None:
    words = {title: 0.9 - 0.05 * place for place, title in enumerate(TITLES[:6])}
    asked = seeing({"tea": "cup,box,tea,leaves", "oat milk": "milk", "almond milk": "milk 2"}, words)
    found = asked.picture(Query(n=8), a_stranger(), b"tea")
    assert titles(found.items)[0] == "tea"
    assert found.ways[0] == ("picture", "meaning")
    assert len(set(found.items.tolist())) == len(found.items)


def test_unlike_photos_that_words_do_not_tell_apart_are_not_the_same() -> None:
    """In the space of the words they lie in one place."""
    words = {title: 0.9 - 0.05 * place for place, title in enumerate(TITLES[:6])}
    asked = seeing({"oat milk": "milk", "tea": "tea"}, words)
    there = FakeEncoder().encode(["tea"])
    asked.sights = replace(asked.sights, photos=ExactIndex(there.repeat(2, axis=0)), laid=lambda seen: there)
    assert titles(asked.picture(Query(n=1), a_stranger(), b"tea").items) == ["tea"]


def test_what_is_near_to_every_text_comes_last() -> None:
    sights = seeing({"oat milk": "sandals", "tea": "sandals,boots"}).sights
    alone, drawn = np.arange(3, dtype=np.int32), np.array([0.5, 0.9, 0.1], np.float32)
    sights = replace(sights, described=replace(sights.described, alone=alone, drawn=drawn))
    assert titles(sights.depicted(FakeEncoder().encode(["sandals"])[0])) == ["oat milk", "tea"]
    drawn[0] = 0.95
    assert titles(sights.depicted(FakeEncoder().encode(["sandals"])[0])) == ["tea", "oat milk"]


def test_of_many_photos_the_nearest_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    sights = seeing({"oat milk": "sandals", "tea": "sandals,boots"}).sights
    drawn = np.array([0.5, 0.9, 0.1], np.float32)
    sights = replace(sights, described=replace(sights.described, alone=np.arange(3, dtype=np.int32), drawn=drawn))
    monkeypatch.setattr("endcap.recommend.sights.DEPICTED", 1)
    assert titles(sights.depicted(FakeEncoder().encode(["sandals"])[0])) == ["oat milk"]


def test_taste_does_not_outdo_a_picture() -> None:
    asked = seeing({"tea": "tea"}, {"tea": 0.9, "oat milk": 0.5, "green tea": 0.8})
    asked.personal = lambda context, items: (items == TITLES.index("oat milk")).astype(np.float32)
    assert titles(asked.picture(Query(n=1), a_stranger(), b"tea").items) == ["tea"]


def test_without_pictures_a_picture_is_the_callers_error() -> None:
    with pytest.raises(CallerError, match="no pictures to compare with"):
        searcher().picture(Query(n=1), a_stranger(), b"tea")


def test_what_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    broken = searcher(encoder=Broken())
    for _ in range(3):
        assert broken.text(Query(n=1), a_stranger(), "tea").degraded == ("meaning",)
    (said,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("Search goes on without meaning: RuntimeError (")


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
