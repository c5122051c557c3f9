"""Texts as words, in any script."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby, pairwise


def _marks() -> str:
    """As a class of characters: vowel signs, accents and the like, which belong to the letter before them. Not those
    that say how a symbol is drawn."""
    codes = [code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    runs = groupby(enumerate(code for code in codes if not 0xFE00 <= code <= 0xFE0F), lambda run: run[1] - run[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(run) for _, run in runs)]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ends)


MARKS = _marks()
EAST_ASIAN = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
THAI_LAO_BURMESE_KHMER = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"
UNSPACED = EAST_ASIAN + THAI_LAO_BURMESE_KHMER
LETTER = rf"(?!\W)[{UNSPACED}][{MARKS}]*"
# A run of letters and digits, ended where the script begins or ends to be one that is written without spaces.
WORD = re.compile(rf"(?P<unspaced>(?:{LETTER})+)|[^\W_{UNSPACED}]+(?:[{MARKS}]+[^\W_{UNSPACED}]*)*")
LETTERS = re.compile(LETTER)
WIDE = re.compile("[\uff01-\uffef]+")  # letters as wide as Chinese ones, and kana and Hangul half as wide
JOINER = "\u200d"  # between letters that are drawn as one


def words_of(text: str) -> list[str]:
    """Lower-case words; of scripts written without spaces, every two letters that stand side by side. However letters
    with accents and wide ones are stored."""
    found: list[str] = []
    for match in WORD.finditer(_plain(text).lower()):
        letters = LETTERS.findall(match[0]) if match["unspaced"] else []
        if len(letters) > 1:
            found += ["".join(pair) for pair in pairwise(letters)]
        else:
            found.append(match[0])
    return found


def _plain(text: str) -> str:
    """Each letter in one way."""
    if text.isascii():
        return text
    narrow = WIDE.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), text.replace(JOINER, ""))
    return unicodedata.normalize("NFC", narrow)
