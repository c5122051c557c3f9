"""GET and POST /v1/search: from words that were typed or spoken, or a picture, to items that fit it and the shopper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from endcap.app.runtime import Shop
from endcap.core.errors import TooManyError
from endcap.web.answers import JSON, encoded, in_turn
from endcap.web.decoding import parameters
from endcap.web.deps import ShopDep, media_declared
from endcap.web.messages import MediaAnswer, SearchParams, SlateAnswer, WordsParams
from endcap.web.openapi import gives, takes_query
from endcap.web.problems import error_responses

router = APIRouter(tags=["search"], responses=error_responses(404, 422, 503))
MEDIA = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", "audio/*")},
    }
}
AT_ONCE = {"image": 2, "audio": 1}  # that are read at a time: each keeps a core busy
WAITING = 8  # more are told to come again, so that whoever waits is answered


@dataclass(slots=True)
class Turns:
    """asked: how many are read or wait."""

    limiter: CapacityLimiter
    asked: int = 0


@router.get("/v1/search", summary="Search", responses=gives(SlateAnswer), openapi_extra=takes_query(WordsParams))
async def search(request: Request, shop: ShopDep) -> Response:
    """Items for words: by meaning and by the words themselves, in the order that fits the shopper.

    For example `/v1/search?q=oat+drink&user_id=42&n=5`. The same items may appear as in recommendations. Send the
    `recommendation_id` with the events that the list leads to, and the search itself as an event of type `search`.
    """
    asked = parameters(request, WordsParams)
    return await in_turn(
        request, shop, lambda: encoded(shop.search(asked.q, asked.user_id or None, asked.n, **_rest(asked)))
    )


@router.post(
    "/v1/search",
    summary="Search by picture or voice",
    responses=gives(MediaAnswer) | error_responses(408, 413, 415, 429),
    openapi_extra=MEDIA | takes_query(SearchParams),
)
async def search_media(
    shop: ShopDep, request: Request, kind: Annotated[Literal["image", "audio"], Depends(media_declared)]
) -> Response:
    """As the GET route, for what the body holds, its kind in Content-Type: a picture (JPEG, PNG, WebP, GIF, BMP, TIFF,
    AVIF), which finds what looks like it and what its words fit; or a clip of up to a minute (WAV, MP3, OGG, WebM,
    M4A), which finds what is said in it. 429 while too many wait already."""
    asked = parameters(request, SearchParams)
    read = _seen if kind == "image" else _spoken
    return Response(await _alone(request, kind, partial(read, shop, await request.body(), asked)), media_type=JSON)


async def _alone(request: Request, kind: str, read: Callable[[], bytes]) -> bytes:
    """In threads of its own, so that other routes have theirs however many pictures and clips come."""
    turns: dict[str, Turns] = request.app.state.media
    turn = turns.setdefault(kind, Turns(CapacityLimiter(AT_ONCE[kind])))
    if turn.asked >= AT_ONCE[kind] + WAITING:
        raise TooManyError(
            f"{WAITING} others wait to be read already.", where=f"search by {kind}", next_step="Send it again later."
        )
    turn.asked += 1
    try:
        return await to_thread.run_sync(read, limiter=turn.limiter)
    finally:
        turn.asked -= 1


def _seen(shop: Shop, picture: bytes, asked: SearchParams) -> bytes:
    slate = shop.search_picture(picture, asked.user_id or None, asked.n, **_rest(asked))
    return encoded(slate, heard=None, language=None)


def _spoken(shop: Shop, clip: bytes, asked: SearchParams) -> bytes:
    slate, heard = shop.search_spoken(clip, asked.user_id or None, asked.n, **_rest(asked))
    return encoded(slate, heard=heard.text, language=heard.language)


def _rest(asked: SearchParams) -> dict[str, Any]:
    return {
        "after": asked.after or None,
        "exclude": tuple(asked.exclude),
        "categories": tuple(asked.category),
        "brands": tuple(asked.brand),
        "min_price": asked.min_price,
        "max_price": asked.max_price,
        "locale": asked.locale,
    }
