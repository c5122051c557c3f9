"""What to show, in Gorse's words: for a user, for a visit, beside an item, the latest and the popular; and health."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from endcap.app.gorse_words import duration_ms
from endcap.core.errors import NotFoundError
from endcap.core.types import Slate
from endcap.web.deps import json_declared
from endcap.web.gorse.asking import GorseDep, N, Offset, check_may_write, gorse_router
from endcap.web.gorse.routes_feedback import heard
from endcap.web.gorse.schemas import GorseSessionAct, HealthStatus, Score
from endcap.web.problems import error_responses

router = gorse_router()
Categories = Annotated[list[str], Query(max_length=100, description="Only items of one of these.")]
Exclude = Annotated[list[str], Query(max_length=1000, description="Ids that must not appear, repeated or with commas.")]
WriteBack = Annotated[str, Query(alias="write-back-type", max_length=100, description="Record the items shown so.")]
Delay = Annotated[str, Query(alias="write-back-delay", max_length=40, description="How much later, such as 10m.")]
Version = Annotated[str, Header(alias="X-API-Version", description="2: answer with scores.")]
UserId = Annotated[str, Query(alias="user-id", max_length=256, description="Without what this user knows.")]
SENT = error_responses(404, 408, 413, 415)
NOT_YET = error_responses(404)


@router.get("/recommend/{user_id}/", include_in_schema=False)
@router.get("/recommend/{user_id}", summary="Recommend to a user", responses=NOT_YET)
async def recommend(
    request: Request,
    gorse: GorseDep,
    user_id: str,
    category: Categories = [],  # noqa: B006 - FastAPI copies it
    exclude: Exclude = [],  # noqa: B006
    n: N = 10,
    offset: Offset = 0,
    write_back_type: WriteBack = "",
    write_back_delay: Delay = "",
    x_api_version: Version = "",
) -> list[str] | list[Score]:
    """Item ids, best first; with the header `X-API-Version: 2`, objects with Id and Score.

    Items that are hidden, out of stock, excluded or known to the user never appear. `write-back-type` records every
    item of the answer as feedback of that type, `write-back-delay` as of so much later.
    """
    if write_back_type:
        check_may_write(request)
    delay_ms = duration_ms(write_back_delay, "write-back-delay") if write_back_delay else 0

    def answer() -> Slate:
        slate = gorse.recommend(user_id, n, offset, _parted(category), _parted(exclude))
        if write_back_type:
            gorse.write_back(slate, user_id, write_back_type, delay_ms)
        return slate

    slate = await run_in_threadpool(answer)
    if write_back_type:
        request.state.owe(len(slate.items))
    return _scored(slate, offset) if x_api_version == "2" else [item.item_id for item in slate.items]


@router.get("/recommend/{user_id}/{category}", summary="Recommend to a user in a category", responses=NOT_YET)
async def recommend_category(
    request: Request,
    gorse: GorseDep,
    user_id: str,
    category: str,
    exclude: Exclude = [],  # noqa: B006
    n: N = 10,
    offset: Offset = 0,
    write_back_type: WriteBack = "",
    write_back_delay: Delay = "",
    x_api_version: Version = "",
) -> list[str] | list[Score]:
    """As without one."""
    return await recommend(
        request, gorse, user_id, [category], exclude, n, offset, write_back_type, write_back_delay, x_api_version
    )


@router.post(
    "/session/recommend", summary="Recommend to a visit", responses=SENT, dependencies=[Depends(json_declared)]
)
async def session(gorse: GorseDep, acts: list[GorseSessionAct], n: N = 10, offset: Offset = 0) -> list[Score]:
    """For the acts of a visit, of which nothing is recorded; without the items of these."""
    return await session_category(gorse, "", acts, n, offset)


@router.post(
    "/session/recommend/{category}",
    summary="Recommend to a visit in a category",
    responses=SENT,
    dependencies=[Depends(json_declared)],
)
async def session_category(
    gorse: GorseDep, category: str, acts: list[GorseSessionAct], n: N = 10, offset: Offset = 0
) -> list[Score]:
    """As without one."""
    return _scored(await run_in_threadpool(gorse.session, heard(acts), n, offset, category), offset)


@router.get("/item/{item_id}/neighbors/", include_in_schema=False)
@router.get("/item/{item_id}/neighbors", summary="Items to show beside one")
async def neighbours(gorse: GorseDep, item_id: str, n: N = 10, offset: Offset = 0) -> list[Score]:
    """What goes with an item; nothing for one that the release does not know."""
    return await neighbours_category(gorse, item_id, "", n, offset)


@router.get("/item/{item_id}/neighbors/{category}", summary="Items of a category to show beside one")
async def neighbours_category(
    gorse: GorseDep, item_id: str, category: str, n: N = 10, offset: Offset = 0
) -> list[Score]:
    """As without one."""
    try:
        return _scored(await run_in_threadpool(gorse.neighbours, item_id, n, offset, category), offset)
    except NotFoundError:
        return []


@router.get("/popular", summary="The popular items", responses=NOT_YET)
async def popular(gorse: GorseDep, user_id: UserId = "", n: N = 10, offset: Offset = 0) -> list[Score]:
    """What sells best these days."""
    return await popular_category(gorse, "", user_id, n, offset)


@router.get("/popular/{category}", summary="The popular items of a category", responses=NOT_YET)
async def popular_category(
    gorse: GorseDep, category: str, user_id: UserId = "", n: N = 10, offset: Offset = 0
) -> list[Score]:
    """What sells best these days in a category."""
    return _scored(await run_in_threadpool(gorse.popular, n, offset, category, user_id), offset)


@router.get("/latest", summary="The latest items")
async def latest(gorse: GorseDep, user_id: UserId = "", n: N = 10, offset: Offset = 0) -> list[Score]:
    """Those that may be shown, the newest first; Score is when they were listed, in seconds."""
    return await latest_category(gorse, "", user_id, n, offset)


@router.get("/latest/{category}", summary="The latest items of a category")
async def latest_category(
    gorse: GorseDep, category: str, user_id: UserId = "", n: N = 10, offset: Offset = 0
) -> list[Score]:
    """As without one."""
    found = await run_in_threadpool(gorse.latest, n, offset, category, user_id)
    return [Score(id=item_id, score=ts_ms // 1000) for item_id, ts_ms in found]


@router.get("/health/live", summary="Is Gorse's stand-in alive?")
async def live(request: Request) -> HealthStatus:
    """Always 200."""
    return await run_in_threadpool(_health, request)


@router.get(
    "/health/ready",
    summary="Can Gorse's stand-in answer?",
    response_model=HealthStatus,
    responses={503: {"model": HealthStatus}},
)
async def ready(request: Request) -> JSONResponse:
    """200 once a release is loaded and answers, else 503. No key is needed; without one the answer names no reason."""
    status = await run_in_threadpool(_health, request)
    return JSONResponse(status.model_dump(by_alias=True), 200 if status.ready else 503)


def _health(request: Request) -> HealthStatus:
    """Of all shops together, where the request shows the key of none."""
    asked = getattr(request.state, "shop_asked", None)
    shops = request.app.state.tenants.shops if asked is None else (asked,)
    found = [shop.health() for shop in shops]
    is_ready = all(health.ready for health in found)
    problem = None if is_ready else found[0].problem if request.state.is_known else "Not ready."
    return HealthStatus(
        ready=is_ready,
        data_store_error=problem,
        cache_store_error=problem,
        data_store_connected=is_ready,
        cache_store_connected=is_ready,
    )


def _parted(values: list[str]) -> tuple[str, ...]:
    """['a,b', 'c'] -> ('a', 'b', 'c')."""
    return tuple(part for value in values for part in value.split(",") if part)


def _scored(slate: Slate, offset: int) -> list[Score]:
    """Scores that can be compared between pages: they fall with the place."""
    return [Score(id=item.item_id, score=1 / (offset + place)) for place, item in enumerate(slate.items, 1)]
