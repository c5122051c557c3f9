import math
from pathlib import Path

import numpy as np
import pytest

from endcap.core.errors import ArtifactError
from endcap.index.lexical import LexicalIndex

TEXTS = [["red", "shoes"], ["blue", "shoes", "blue"], ["red", "hat"], [], ["green", "scarf", "with", "red", "dots"]]


def test_scores_are_those_of_the_formula() -> None:
    """Lucene's BM25: idf = log(1 + (n - df + 0.5) / (df + 0.5)), k1 = 1.5, b = 0.75."""
    index = LexicalIndex.of(TEXTS)
    mean = np.mean([len(text) for text in TEXTS])
    idf = math.log(1 + (5 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / mean))
    assert index.scores(["blue"]) == pytest.approx([0, expected, 0, 0, 0], rel=1e-5)


def test_rare_words_count_more_and_short_texts_come_first() -> None:
    items, scores = LexicalIndex.of(TEXTS).best(["red", "hat"], 10, least=0)
    assert items.tolist()[0] == 2
    assert set(items.tolist()) == {0, 2, 4}
    assert items.tolist()[-1] == 4
    assert (np.diff(scores) <= 0).all()


def test_a_text_must_hold_half_of_what_the_words_tell() -> None:
    """`red` is in three of five texts; `zeppelin`, which is in none, tells far more."""
    index = LexicalIndex.of(TEXTS)
    assert index.best(["red", "hat"], 10)[0].tolist() == [2]
    assert index.best(["red", "zeppelin"], 10)[0].tolist() == []
    assert sorted(index.best(["red"], 10)[0].tolist()) == [0, 2, 4]
    common, rare = (math.log(1 + (5 - held + 0.5) / (held + 0.5)) for held in (3, 1))
    assert index.told(["red", "hat"]) == pytest.approx([common / (common + rare), 0, 1, 0, common / (common + rare)])


def test_words_of_grammar_tell_nothing_unless_alone() -> None:
    index = LexicalIndex.of(TEXTS)
    assert index.best(["hat", "for", "the"], 10)[0].tolist() == [2]
    assert index.best(["with"], 10)[0].tolist() == [4]


def test_words_that_nobody_holds_find_nothing() -> None:
    index = LexicalIndex.of(TEXTS)
    assert index.best(["zeppelin"], 3)[0].tolist() == []
    assert index.best([], 3)[0].tolist() == []
    assert LexicalIndex.of([[], []]).scores(["red"]).tolist() == [0, 0]


@pytest.mark.parametrize("texts", [TEXTS, [[], []]])
def test_saved_and_loaded_it_answers_the_same(tmp_path: Path, texts: list[list[str]]) -> None:
    index = LexicalIndex.of(texts)
    index.save(tmp_path)
    np.testing.assert_array_equal(LexicalIndex.load(tmp_path).scores(["red"]), index.scores(["red"]))
    assert not list(tmp_path.rglob("*.pkl"))


def test_a_folder_without_an_index_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        LexicalIndex.load(tmp_path)
