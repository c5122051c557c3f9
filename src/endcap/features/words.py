"""Texts as words, in any script."""

from __future__ import annotations

import re

UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
# A run of letters and digits, ended where the script begins or ends to be one that is written without spaces.
WORD = re.compile(rf"(?P<unspaced>(?:(?!\W)[{UNSPACED}])+)|[^\W_{UNSPACED}]+")


def words_of(text: str) -> list[str]:
    """Lower-case words; of scripts written without spaces, every two characters that stand side by side."""
    found: list[str] = []
    for match in WORD.finditer(text.lower()):
        word = match[0]
        if match["unspaced"] and len(word) > 1:
            found += [word[place : place + 2] for place in range(len(word) - 1)]
        else:
            found.append(word)
    return found
