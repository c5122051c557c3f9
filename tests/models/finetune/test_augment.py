"""Altered texts: what may change, what must not, and that the generator decides alone."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from endcap.core.errors import CallerError
from endcap.models.finetune.augment import Augmenter, Synonyms, drop_words, hook, misspell, swap_words
from endcap.models.finetune.config import AugmentConfig

ENGLISH, CHINESE, MIXED = "the quick brown fox jumps over lazy dogs", "退款什么时候到账", "iPhone 手机壳 red 红色"


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, MIXED])
def test_swapping_keeps_every_word_and_moves_neighbours(text: str) -> None:
    for seed in range(20):
        changed = swap_words(text, 0.15, draw(seed))
        assert sorted(changed) == sorted(text)
        assert changed != text
    assert {swap_words("a b", 0.5, draw(seed)) for seed in range(5)} == {"b a"}
    assert swap_words("退款", 0.5, draw()) == "款退"


@pytest.mark.parametrize(("text", "words"), [(ENGLISH, 8), (CHINESE, 8)])
def test_dropping_leaves_out_the_share(text: str, words: int) -> None:
    for seed in range(20):
        left = drop_words(text, 0.25, draw(seed))
        pieces = left.split() if " " in text else list(left)
        assert len(pieces) == words - 2
        assert re.search(".*".join(map(re.escape, pieces)), text)
        assert left == left.strip()
        assert "  " not in left


@pytest.mark.parametrize("change", [swap_words, drop_words, misspell])
@pytest.mark.parametrize("text", ["", " ", "one", "款"])
def test_short_texts_survive(change: object, text: str) -> None:
    assert change(text, 0.5, draw()).strip() == text.strip() or change is misspell  # type: ignore[operator]


def test_a_slip_changes_one_word_by_a_letter() -> None:
    for seed in range(40):
        changed = misspell(ENGLISH, 0.1, draw(seed)).split()
        different = [(a, b) for a, b in zip(ENGLISH.split(), changed, strict=True) if a != b]
        assert len(different) <= 1
        assert all(abs(len(a) - len(b)) <= 1 for a, b in different)
    assert misspell(CHINESE, 0.5, draw()) == CHINESE


class TestSynonyms:
    WORDS = ("red", "crimson", "blue", "手", "足")
    VECTORS = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0], [-0.96, 0.28]], dtype=np.float32)

    def test_are_the_nearest_from_the_least_cosine_on(self) -> None:
        synonyms = Synonyms(self.WORDS, self.VECTORS, least=0.7)
        assert synonyms.of_word("Red") == ["crimson"]
        assert synonyms.of_word("crimson") == ["red"]
        assert synonyms.of_word("blue") == []
        assert synonyms.replace("a red thing", 0.5, draw()) == "a crimson thing"
        assert synonyms.replace("手机", 0.5, draw()) == "足机"

    def test_the_vocabulary_is_what_stands_twice(self) -> None:
        asked: list[str] = []

        def encode(words: Sequence[str]) -> np.ndarray:
            asked.extend(words)
            return np.eye(len(words), dtype=np.float32)

        Synonyms.of(["Red shoe 1", "red boot 1", "红色 红"], encode)
        assert sorted(asked) == ["red", "红"]

    def test_no_word_at_all(self) -> None:
        synonyms = Synonyms.of(["one two"], lambda words: np.zeros((len(words), 4), np.float32))
        assert synonyms.replace("one two", 0.5, draw()) == "one two"


class TestAugmenter:
    def test_alters_about_the_share_and_follows_the_generator(self) -> None:
        augmenter = Augmenter(AugmentConfig(share=0.3))
        texts = [ENGLISH] * 1000
        once, again = augmenter(texts, draw(3)), augmenter(texts, draw(3))
        assert once == again != augmenter(texts, draw(4))
        assert 0.25 < np.mean([text != ENGLISH for text in once]) < 0.35

    def test_only_the_kinds_that_are_on(self) -> None:
        config = AugmentConfig(share=1, swap=False, delete=True)
        assert all(len(text.split()) == 7 for text in Augmenter(config)([ENGLISH] * 50, draw()))
        assert Augmenter(AugmentConfig(share=1, swap=False, delete=False))([ENGLISH], draw()) == [ENGLISH]

    def test_a_rewrite_that_leaves_nothing_is_not_taken(self) -> None:
        config = AugmentConfig(share=1, swap=False, delete=False)
        augmenter = Augmenter(config, rewrites=[lambda texts, rng: [""] * len(texts)])
        assert augmenter([ENGLISH, "x"], draw()) == [ENGLISH, "x"]


def test_an_unknown_hook_is_told() -> None:
    with pytest.raises(CallerError, match=r"no augmentation called 'paraphrase'\. Known: none"):
        hook("paraphrase")
