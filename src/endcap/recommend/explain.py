"""Reasons in words, for shoppers, in English and Chinese."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from endcap.core.faults import origin
from endcap.core.protocols import CandidateSource
from endcap.core.types import Candidates, Context, Int64Array, Reason

LOG = logging.getLogger(__name__)
EVERYBODY = frozenset({"popular", "trending", "newcomers"})

TEMPLATES: dict[str, dict[str, str]] = {
    "en": {
        "rhythm": "You buy this about every {days:.0f} days",
        "bought_before": "You bought this before",
        "together": "Often bought together with {because}",
        "ease_cart": "Often bought together with {because}",
        "knn": "Goes with {because}, which you buy",
        "knn_last": "Goes with {because}",
        "transitions": "Often bought after {because}",
        "transitions_last": "Often bought after {because}",
        "second_hop": "Often follows what is bought after {because}",
        "ease": "Chosen by shoppers who buy what you buy",
        "shoppers": "Shoppers with a taste like yours buy this",
        "content": "Similar to {because}",
        "words": "Described like {because}",
        "next_for_you": "Fits what you did lately",
        "category": "A favourite in {category}",
        "trending": "Selling well these days",
        "newcomers": "Many shoppers try this for the first time",
        "popular": "Popular in this shop",
        "range": "From our range",
        "found_words": "Has the words you searched for",
        "found_meaning": "Close to what you searched for",
        "found_picture": "Looks like your picture",
        "found_depicted": "Its picture fits what you searched for",
    },
    "zh": {
        "rhythm": "您大约每 {days:.0f} 天购买一次",
        "bought_before": "您以前买过",
        "together": "常与“{because}”一起购买",
        "ease_cart": "常与“{because}”一起购买",
        "knn": "与您常买的“{because}”相配",
        "knn_last": "与“{because}”相配",
        "transitions": "常在购买“{because}”之后购买",
        "transitions_last": "常在购买“{because}”之后购买",
        "second_hop": "购买“{because}”的顾客后续常选择它",
        "ease": "购买同类商品的顾客也选择它",
        "shoppers": "与您口味相近的顾客也在买",
        "content": "与“{because}”相似",
        "words": "与“{because}”描述相近",
        "next_for_you": "符合您最近的浏览和购买",
        "category": "“{category}”中的热门商品",
        "trending": "近期热销",
        "newcomers": "许多顾客正在首次尝试",
        "popular": "本店热门",
        "range": "本店在售",
        "found_words": "包含您搜索的词语",
        "found_meaning": "与您搜索的内容相近",
        "found_picture": "与您的图片相似",
        "found_depicted": "图片与您搜索的内容相符",
    },
}


class Explainer:
    """Names the source that speaks loudest for an item, and says so in a sentence.

    title, category: what a shopper reads for a catalogue position.
    """

    def __init__(
        self, sources: Sequence[CandidateSource], title: Callable[[int], str], category: Callable[[int], str]
    ) -> None:
        self._sources, self._title, self._category = sources, title, category
        self._everybody = np.array([source.name in EVERYBODY for source in sources], np.bool_)

    def reasons(self, candidates: Candidates, rows: Int64Array, context: Context) -> list[Reason]:
        """For each row the reason of the source that ranked the candidate best; what is popular with everybody speaks
        last. rows: int64 [k]."""
        ranks, scores = candidates.ranks[rows], candidates.scores[rows]
        loudness = (ranks + self._everybody * np.float32(candidates.per_source + 1)).argsort(axis=1, kind="stable")
        return [
            self._reason(item, columns, said, context)
            for item, columns, said in zip(
                candidates.items[rows].tolist(), loudness.tolist(), scores.tolist(), strict=True
            )
        ]

    def _reason(self, item: int, columns: list[int], said: list[float], context: Context) -> Reason:
        for column in columns:
            reason = self._ask(self._sources[column], context, item) if said[column] > 0 else None
            if reason is not None:
                return reason
        return Reason("popular", "popular")

    def _ask(self, source: CandidateSource, context: Context, item: int) -> Reason | None:
        try:
            return source.explain(context, item)
        except Exception as error:  # a slate without this reason beats no slate
            LOG.error("The source %s could not give a reason: %s", source.name, origin(error))
            return None

    def sentence(self, reason: Reason, item: int, locale: str) -> str:
        """In the locale's language; English where there is none."""
        because = self._title(reason.because) if reason.because >= 0 else ""
        category = self._category(item) if reason.code == "category" else ""
        return _template(reason.code, locale).format(because=because, category=category, **reason.values)

    def plain(self, code: str, locale: str) -> str:
        """A reason that names nothing."""
        return _template(code, locale)


@lru_cache(maxsize=1024)
def _template(code: str, locale: str) -> str:
    texts = TEMPLATES.get(locale.partition("-")[0], TEMPLATES["en"])
    return texts.get(code, texts["popular"])
