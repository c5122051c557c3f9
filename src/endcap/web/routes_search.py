"""GET and POST /v1/search: from words that were typed or spoken, or a picture, to items that fit it and the shopper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from endcap.app.runtime import Shop
from endcap.core.errors import ServiceError
from endcap.web.deps import ShopDep, media_declared
from endcap.web.problems import error_responses
from endcap.web.routes_recommendations import listed, with_titles
from endcap.web.schemas import MediaAnswer, SearchBase, SearchParams, SlateAnswer

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


@router.get("/v1/search", summary="Search")
async def search(shop: ShopDep, asked: Annotated[SearchParams, Query()]) -> SlateAnswer:
    """Items for words: by meaning and by the words themselves, in the order that fits the shopper.

    For example `/v1/search?q=oat+drink&user_id=42&n=5`. The same items may appear as in recommendations. Send the
    `recommendation_id` with the events that the list leads to, and the search itself as an event of type `search`.
    """
    return await run_in_threadpool(_typed, shop, asked)


@router.post(
    "/v1/search", summary="Search by picture or voice", responses=error_responses(413, 415), openapi_extra=MEDIA
)
async def search_media(
    shop: ShopDep,
    request: Request,
    asked: Annotated[SearchBase, Query()],
    kind: Annotated[Literal["image", "audio"], Depends(media_declared)],
) -> MediaAnswer:
    """As the GET route, for what the body holds, its kind in Content-Type: a picture (JPEG, PNG, WebP, GIF, BMP, TIFF,
    AVIF), which finds what looks like it and what its words fit; or a clip of up to a minute (WAV, MP3, OGG, WebM,
    M4A), which finds what is said in it. 503 while too many wait already."""
    read = _seen if kind == "image" else _spoken
    return await _in_turn(request, kind, partial(read, shop, await request.body(), asked))


async def _in_turn(request: Request, kind: str, read: Callable[[], MediaAnswer]) -> MediaAnswer:
    """In threads of its own, so that other routes have theirs however many pictures and clips come."""
    turns: dict[str, Turns] = request.app.state.media
    turn = turns.setdefault(kind, Turns(CapacityLimiter(AT_ONCE[kind])))
    if turn.asked >= AT_ONCE[kind] + WAITING:
        raise ServiceError(
            f"{WAITING} others wait to be read already.", where=f"search by {kind}", next_step="Send it again later."
        )
    turn.asked += 1
    try:
        return await to_thread.run_sync(read, limiter=turn.limiter)
    finally:
        turn.asked -= 1


def _typed(shop: Shop, asked: SearchParams) -> SlateAnswer:
    return with_titles(shop, shop.search(asked.q, asked.user_id or None, asked.n, **_rest(asked)))


def _seen(shop: Shop, picture: bytes, asked: SearchBase) -> MediaAnswer:
    slate = shop.search_picture(picture, asked.user_id or None, asked.n, **_rest(asked))
    return MediaAnswer(**dict(with_titles(shop, slate)))


def _spoken(shop: Shop, clip: bytes, asked: SearchBase) -> MediaAnswer:
    slate, heard = shop.search_spoken(clip, asked.user_id or None, asked.n, **_rest(asked))
    return MediaAnswer(**dict(with_titles(shop, slate)), heard=heard.text, language=heard.language)


def _rest(asked: SearchBase) -> dict[str, object]:
    return {"exclude": listed(asked.exclude), "categories": listed(asked.category), "locale": asked.locale}
