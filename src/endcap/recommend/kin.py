"""Items that came after the release: each is spoken of through the item it is most like.

Nothing learned knows a new item, but what it is made of does: its words lie near those of items that are known. So a
source that is asked about a new item says of it what it says of the nearest known one, times how near that is; and a
shopper who turns to a new item is taken to have turned to that one. A training puts the item's own past in its place.

Legend: n known items, r rows of new ones behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from endcap.core.protocols import BulkSource, CandidateSource
from endcap.core.ranking import best_positions
from endcap.core.types import Context, Evidence, Float32Array, Int32Array, Reason

NOBODY = -1
CLOSE = 0.3  # cosine, or share of the words, below which an item is like no other
PROPOSING = ("content", "words")  # sources by what items are, which find new ones


class Kin:
    """Who stands for whom. known: n. like: int32 [n + r], an item itself, for new ones the nearest known or NOBODY.
    near: float32 [n + r], 1 for known ones. until: one more than the last position in use."""

    def __init__(self, known: int, room: int) -> None:
        self.known = self.until = known
        self.like = np.append(np.arange(known, dtype=np.int32), np.full(room, NOBODY, np.int32))
        self.near = np.append(np.ones(known, np.float32), np.zeros(room, np.float32))

    def put(self, place: int, like: int, near: float) -> None:
        """like: a known position, or NOBODY. near: at most 1."""
        if near >= CLOSE and like != NOBODY:
            self.like[place], self.near[place] = like, near
        self.until = max(self.until, place + 1)

    def take_over(self, before: Kin) -> None:
        """What was known with less room."""
        self.like[: len(before.like)], self.near[: len(before.near)] = before.like, before.near
        self.until = before.until

    def through(self, context: Context) -> Context:
        """The context with every new item replaced by the one that stands for it, or left out."""
        newest = max(int(part.max(initial=0)) for part in (context.items, context.cart, context.session))
        if max(newest, context.anchor) < self.known:
            return context
        items = self.like[context.items]
        acted, bought = items != NOBODY, context.bought < self.known
        return replace(
            context,
            items=items[acted],
            kinds=context.kinds[acted],
            ts_ms=context.ts_ms[acted],
            baskets=context.baskets[acted],
            bought=context.bought[bought],
            bought_n=context.bought_n[bought],
            bought_first_ms=context.bought_first_ms[bought],
            bought_last_ms=context.bought_last_ms[bought],
            cart=self._known(context.cart),
            session=self._known(context.session),
            anchor=int(self.like[context.anchor]) if context.anchor >= 0 else context.anchor,
        )

    def _known(self, items: Int32Array) -> Int32Array:
        stand = self.like[items]
        known: Int32Array = stand[stand != NOBODY]
        return known


class ThroughKin:
    """A source that speaks of new items too. proposes: whether it may bring them up, or only scores them."""

    def __init__(self, source: CandidateSource, kin: Kin, *, proposes: bool) -> None:
        self.name, self.source, self._kin, self._proposes = source.name, source, kin, proposes

    def weigh(self, context: Context) -> Evidence:
        return _Through(self.source.weigh(self._kin.through(context)), self._kin, self._proposes)

    def weigh_many(self, contexts: Sequence[Context]) -> list[Evidence]:
        known = [self._kin.through(context) for context in contexts]
        said = (
            self.source.weigh_many(known)
            if isinstance(self.source, BulkSource)
            else [self.source.weigh(one) for one in known]
        )
        return [_Through(evidence, self._kin, self._proposes) for evidence in said]

    def explain(self, context: Context, item: int) -> Reason | None:
        if item < self._kin.known:
            return self.source.explain(self._kin.through(context), item)
        return Reason(self.name, "content", because=int(self._kin.like[item])) if self._kin.near[item] else None

    def save(self, folder: Path) -> None:
        self.source.save(folder)


class _Through:
    __slots__ = ("_evidence", "_kin", "_proposes")

    def __init__(self, evidence: Evidence, kin: Kin, proposes: bool) -> None:
        self._evidence, self._kin, self._proposes = evidence, kin, proposes

    def top(self, k: int) -> tuple[Int32Array, Float32Array]:
        items, scores = self._evidence.top(k)
        kin = self._kin
        if not self._proposes or kin.until == kin.known:
            return items, scores
        new = np.arange(kin.known, kin.until, dtype=np.int32)
        said = self.at(new)
        new, said = new[said > 0], said[said > 0]
        both, marks = np.concatenate([items, new]), np.concatenate([scores, said])
        best = best_positions(marks, k)
        return both[best], marks[best]

    def at(self, items: Int32Array) -> Float32Array:
        kin = self._kin
        if not len(items) or int(items.max()) < kin.known:
            return self._evidence.at(items)
        near, stand = kin.near[items], kin.like[items]
        marks = self._evidence.at(np.where(stand == NOBODY, 0, stand).astype(np.int32))
        # what speaks against the one it is like speaks against it as much; only praise is worth less
        found: Float32Array = np.where(marks > 0, marks * near, np.where(near > 0, marks, 0)).astype(np.float32)
        return found


def through_kin(sources: Sequence[CandidateSource], kin: Kin) -> tuple[CandidateSource, ...]:
    """All of them; those that go by what items are propose new ones, or, where there are none of these, every one."""
    by_nature = any(source.name in PROPOSING for source in sources)
    return tuple(ThroughKin(one, kin, proposes=not by_nature or one.name in PROPOSING) for one in sources)
