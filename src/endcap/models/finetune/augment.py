"""Other ways to say a text, for training; and harm done to a text, to measure what a model stands.

Words are runs between spaces; in Chinese and Japanese, which write none, each character counts as one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import numpy as np

from endcap.core.errors import CallerError
from endcap.core.types import Float32Array
from endcap.models.finetune.config import AugmentConfig
from endcap.models.finetune.nearest import nearest

PIECES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\s+|[^\s\u3040-\u30ff\u3400-\u9fff]+")
Change = Callable[[str, np.random.Generator], str]
Rewrite = Callable[[Sequence[str], np.random.Generator], list[str]]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Augmenter:
    """Alters a share of the texts it is given; each by one kind of change, drawn by lot.

    rewrites: such as a masked language model's, or a translation there and back; beside the kinds the config turns on.
    """

    def __init__(
        self, config: AugmentConfig, synonyms: Synonyms | None = None, rewrites: Sequence[Rewrite] = ()
    ) -> None:
        self.share = config.share
        changes: list[Change] = []
        if config.swap:
            changes.append(lambda text, rng: swap_words(text, config.words, rng))
        if config.delete:
            changes.append(lambda text, rng: drop_words(text, config.words, rng))
        if synonyms is not None:
            changes.append(lambda text, rng: synonyms.replace(text, config.words, rng))
        self._kinds: list[Rewrite] = [_for_each(change) for change in changes]
        self._kinds += list(rewrites)

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """The texts, in order; which are altered, and how, follows from the generator alone."""
        out = list(texts)
        if not self._kinds or not self.share:
            return out
        kinds = np.where(rng.random(len(out)) < self.share, rng.integers(len(self._kinds), size=len(out)), -1)
        for kind, rewrite in enumerate(self._kinds):
            places = np.flatnonzero(kinds == kind)
            for place, text in zip(places, rewrite([out[place] for place in places], rng), strict=True):
                out[place] = text or out[place]
        return out


class Synonyms:
    """For each word of a vocabulary, the words nearest to it by an encoder."""

    def __init__(self, words: Sequence[str], vectors: Float32Array, *, least: float = 0.6, most: int = 5) -> None:
        """vectors: float32 [words, d], of unit length. least: cosine from which a word may stand for another."""
        self._near: dict[str, list[str]] = {}
        for start in range(0, len(words), 1024):
            cosines = vectors[start : start + 1024] @ vectors.T
            rows = np.arange(len(cosines))
            cosines[rows, start + rows] = -1
            best = nearest(cosines, min(most, len(words)))
            for word, places, found in zip(words[start : start + 1024], best, cosines, strict=True):
                near = [words[place] for place in places if found[place] >= least]
                if near:
                    self._near[word] = near

    @classmethod
    def of(
        cls, texts: Sequence[str], encode: Callable[[Sequence[str]], Float32Array], *, most_words: int = 20_000
    ) -> Synonyms:
        """The vocabulary is what stands at least twice in the texts."""
        counts = Counter(word.lower() for text in texts for word in PIECES.findall(text) if word.isalpha())
        words = [word for word, count in counts.most_common(most_words) if count > 1]
        return cls(words, encode(words))

    def of_word(self, word: str) -> list[str]:
        return self._near.get(word.lower(), [])

    def replace(self, text: str, share: float, rng: np.random.Generator) -> str:
        """So large a share of the words as have a synonym give way to one."""
        pieces = PIECES.findall(text)
        known = [place for place, piece in enumerate(pieces) if self.of_word(piece)]
        for place in _some(known, share, rng):
            near = self.of_word(pieces[place])
            pieces[place] = near[int(rng.integers(len(near)))]
        return "".join(pieces)


def swap_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Words change places with the one that follows."""
    pieces, places = _words(text)
    for place in _some(list(range(len(places) - 1)), share, rng):
        left, right = places[place], places[place + 1]
        pieces[left], pieces[right] = pieces[right], pieces[left]
    return "".join(pieces)


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Words are left out; one stays at least."""
    pieces, places = _words(text)
    for place in _some(places, share, rng)[: max(0, len(places) - 1)]:
        pieces[place] = ""
    return re.sub(r"\s+", " ", "".join(pieces)).strip()


def misspell(text: str, share: float, rng: np.random.Generator) -> str:
    """One slip in each of some words: a letter left out, doubled, exchanged for another, or two letters turned."""
    pieces, places = _words(text)
    for place in _some([place for place in places if len(pieces[place]) > 2], share, rng):
        word = pieces[place]
        at, slip = int(rng.integers(len(word) - 1)), int(rng.integers(4))
        pieces[place] = (
            word[:at]
            + (
                word[at + 1 :],
                word[at] + word[at:],
                LETTERS[int(rng.integers(len(LETTERS)))] + word[at + 1 :],
                word[at + 1] + word[at] + word[at + 2 :],
            )[slip]
        )
    return "".join(pieces)


def hook(name: str) -> Rewrite:
    """A third party's rewriting, by the name of its entry point."""
    for point in entry_points(group="endcap.augment", name=name):
        rewrite: Rewrite = point.load()
        return rewrite
    known = ", ".join(sorted(entry_points(group="endcap.augment").names)) or "none"
    raise CallerError(f"There is no augmentation called {name!r}.", where="augment.hook", next_step=f"Known: {known}.")


def _for_each(change: Change) -> Rewrite:
    return lambda texts, rng: [change(text, rng) for text in texts]


def _words(text: str) -> tuple[list[str], list[int]]:
    """The pieces of a text, and which of them are words."""
    pieces = PIECES.findall(text)
    return pieces, [place for place, piece in enumerate(pieces) if not piece.isspace()]


def _some(places: Sequence[int], share: float, rng: np.random.Generator) -> list[int]:
    """A share of the places by lot, in order, at least one if there is any."""
    if not places:
        return []
    count = max(1, round(share * len(places)))
    return sorted(rng.permutation(np.array(places))[:count].tolist())
