"""Recommendation ids that say themselves what they stand for, so that no server has to remember them.

    r-<head>            22 characters: version, placement, release, ten random bytes, in base64url
    r-<head>.<memory>   the same with what was shown so far: four bytes an item

The head attributes events: which placement and release led to a click is read from the id that the click quotes. The
memory makes the next page: whoever is asked for more after an id leaves out what it holds, whichever process made it,
and whichever release answers now. Items are kept as CRC-32 of their ids; that two ids share one is harmless, as then
an item is left out that nobody asked for by name.
"""

from __future__ import annotations

import binascii
import os
import re
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endcap.core.types import Placement

VERSION = 1
PREFIX = "r-"
HEAD_CHARS = len(PREFIX) + 22
MAX_SHOWN = 2000
MOST_IN_PAGE = 500
MAX_CHARS = HEAD_CHARS + 1 + (MAX_SHOWN + MOST_IN_PAGE) * 16 // 3 + 4  # of the last page, too
PLACEMENTS = (  # the order is the code within ids: append only
    Placement.HOME,
    Placement.DISCOVERY,
    Placement.ITEM,
    Placement.CART,
    Placement.CATEGORY,
    Placement.SEARCH,
)
_CODES = {placement: code for code, placement in enumerate(PLACEMENTS)}
_FORM = re.compile(r"r-([\w-]{22})(?:\.([\w-]*))?", re.ASCII)

Hashes = NDArray[np.uint32]
NONE_SHOWN: Hashes = np.empty(0, np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What an id says. release: `release_hash` of the release that answered. shown: uint32 [n], `item_hashes` of what
    was shown in this and earlier pages; empty where only the head is left."""

    placement: Placement
    release: int
    shown: Hashes


def new_id(placement: Placement, release: int, shown: Iterable[str] = (), before: Hashes = NONE_SHOWN) -> str:
    """A fresh id. release: see `release_hash`. shown: item ids of this page. before: what earlier pages showed."""
    head = bytes((VERSION, _CODES[placement])) + release.to_bytes(4, "little") + os.urandom(10)
    memory = before.tobytes() + item_hashes(shown).tobytes()
    return f"{PREFIX}{_text(head)}.{_text(memory)}" if memory else f"{PREFIX}{_text(head)}"


def parse(recommendation_id: str) -> Told | None:
    """What an id says; None for one that is not of ours, or damaged."""
    found = _FORM.fullmatch(recommendation_id) if len(recommendation_id) <= MAX_CHARS else None
    if found is None:
        return None
    head, memory = _bytes(found[1]), _bytes(found[2] or "")
    if head is None or memory is None or head[0] != VERSION or head[1] >= len(PLACEMENTS) or len(memory) % 4:
        return None
    return Told(PLACEMENTS[head[1]], int.from_bytes(head[2:6], "little"), np.frombuffer(memory, "<u4"))


def head_of(recommendation_id: str) -> str:
    """The id without its memory: what events keep."""
    return recommendation_id[:HEAD_CHARS] if _FORM.fullmatch(recommendation_id) else recommendation_id


def release_hash(release_id: str) -> int:
    """The four bytes that stand for a release within ids."""
    return zlib.crc32(release_id.encode())


def item_hashes(item_ids: Iterable[str]) -> Hashes:
    """uint32 [n] of item ids."""
    return np.array([zlib.crc32(item_id.encode()) for item_id in item_ids], np.uint32)


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes | None:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
