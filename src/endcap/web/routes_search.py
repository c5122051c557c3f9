"""Searching, by what is typed and by what is said."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from endcap.app.runtime import Shop
from endcap.web.deps import ShopDep, sound_declared
from endcap.web.problems import error_responses
from endcap.web.routes_recommendations import listed, with_titles
from endcap.web.schemas import SearchBase, SearchParams, SlateAnswer, SpokenAnswer

router = APIRouter(tags=["search"], responses=error_responses(404, 422, 503))
CLIP = {"requestBody": {"required": True, "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/v1/search", summary="Search")
async def search(shop: ShopDep, asked: Annotated[SearchParams, Query()]) -> SlateAnswer:
    """Items for words: by meaning and by the words themselves, in the order that fits the shopper.

    For example `/v1/search?q=oat+drink&user_id=42&n=5`. The same items may appear as in recommendations. Send the
    `recommendation_id` with the events that the list leads to, and the search itself as an event of type `search`.
    """
    return await run_in_threadpool(_typed, shop, asked)


@router.post(
    "/v1/search",
    summary="Search by voice",
    responses=error_responses(413, 415),
    dependencies=[Depends(sound_declared)],
    openapi_extra=CLIP,
)
async def search_spoken(shop: ShopDep, request: Request, asked: Annotated[SearchBase, Query()]) -> SpokenAnswer:
    """As the GET route, for a clip: the body is a sound file (WAV, MP3, OGG, WebM, M4A), its kind in Content-Type."""
    return await run_in_threadpool(_spoken, shop, await request.body(), asked)


def _typed(shop: Shop, asked: SearchParams) -> SlateAnswer:
    slate = shop.search(
        asked.q,
        asked.user_id or None,
        asked.n,
        exclude=listed(asked.exclude),
        categories=listed(asked.category),
        locale=asked.locale,
    )
    return with_titles(shop, slate)


def _spoken(shop: Shop, clip: bytes, asked: SearchBase) -> SpokenAnswer:
    slate, heard = shop.search_spoken(
        clip,
        asked.user_id or None,
        asked.n,
        exclude=listed(asked.exclude),
        categories=listed(asked.category),
        locale=asked.locale,
    )
    return SpokenAnswer(**dict(with_titles(shop, slate)), heard=heard.text, language=heard.language)
