"""Searching."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from endcap.app.runtime import Shop
from endcap.web.deps import ShopDep
from endcap.web.problems import error_responses
from endcap.web.routes_recommendations import listed, with_titles
from endcap.web.schemas import SearchParams, SlateAnswer

router = APIRouter(tags=["search"], responses=error_responses(404, 422, 503))


@router.get("/v1/search", summary="Search")
async def search(shop: ShopDep, asked: Annotated[SearchParams, Query()]) -> SlateAnswer:
    """Items for words: by meaning and by the words themselves, in the order that fits the shopper.

    For example `/v1/search?q=oat+drink&user_id=42&n=5`. The same items may appear as in recommendations. Send the
    `recommendation_id` with the events that the list leads to, and the search itself as an event of type `search`.
    """
    return await run_in_threadpool(_answer, shop, asked)


def _answer(shop: Shop, asked: SearchParams) -> SlateAnswer:
    slate = shop.search(
        asked.q,
        asked.user_id or None,
        asked.n,
        exclude=listed(asked.exclude),
        categories=listed(asked.category),
        locale=asked.locale,
    )
    return with_titles(shop, slate)
