"""Asking for slates."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.concurrency import run_in_threadpool

from endcap.app.runtime import Shop
from endcap.core import types
from endcap.core.types import Event, Slate
from endcap.web.deps import ShopDep, json_declared, no_parameters
from endcap.web.problems import error_responses
from endcap.web.schemas import RecommendedItem, RecommendIn, RecommendParams, SimilarParams, SlateAnswer

router = APIRouter(tags=["recommendations"], responses=error_responses(404, 422, 503))


@router.get("/v1/recommendations", summary="Recommend")
async def recommend(shop: ShopDep, asked: Annotated[RecommendParams, Query()]) -> SlateAnswer:
    """A slate for a shopper, or for a stranger where `user_id` is missing or unknown.

    For example `/v1/recommendations?user_id=42&n=5&placement=cart&cart=1082185,995242`. Items that are hidden, out of
    stock or excluded never appear; the list has `n` items wherever the shop has as many that may be shown.
    """
    query = types.Query(
        user_id=asked.user_id or None,
        session_id=asked.session_id or None,
        placement=asked.placement,
        n=asked.n,
        item_id=asked.item_id or None,
        cart=listed(asked.cart),
        exclude=listed(asked.exclude),
        categories=listed(asked.category),
        hide_bought=asked.hide_bought,
        locale=asked.locale,
    )
    return await run_in_threadpool(_answer, shop, query)


@router.post(
    "/v1/recommendations",
    summary="Recommend, with everything a query can hold",
    responses=error_responses(415),
    dependencies=[Depends(no_parameters), Depends(json_declared)],
)
async def recommend_query(shop: ShopDep, asked: RecommendIn) -> SlateAnswer:
    """As the GET route, with lists of any ids, acts that are not recorded, and a moment of one's own."""
    now_ms = shop.clock()
    acts = tuple(
        Event(
            event_type=act.event_type,
            user_id=asked.user_id or "",
            ts_ms=now_ms if act.ts_ms is None else act.ts_ms,
            item_id=act.item_id,
            session_id=act.session_id,
            quantity=act.quantity,
        )
        for act in asked.session_events
    )
    query = types.Query(
        user_id=asked.user_id or None,
        session_id=asked.session_id or None,
        placement=asked.placement,
        n=asked.n,
        now_ms=asked.now_ms,
        item_id=asked.item_id or None,
        cart=tuple(asked.cart),
        session_events=acts,
        exclude=tuple(asked.exclude),
        categories=tuple(asked.categories),
        hide_bought=asked.hide_bought,
        locale=asked.locale,
    )
    return await run_in_threadpool(_answer, shop, query)


@router.get("/v1/items/{item_id:path}/similar", summary="Items to show beside one")
async def similar(shop: ShopDep, item_id: str, asked: Annotated[SimilarParams, Query()]) -> SlateAnswer:
    """What goes with an item, for no shopper in particular. 404 for an item that the release does not know."""
    return await run_in_threadpool(_similar, shop, item_id, asked.n, asked.locale)


def listed(values: list[str]) -> tuple[str, ...]:
    """['a,b', 'c'] -> ('a', 'b', 'c')."""
    return tuple(part for value in values for part in value.split(",") if part)


def _answer(shop: Shop, query: types.Query) -> SlateAnswer:
    return with_titles(shop, shop.answer(query))


def _similar(shop: Shop, item_id: str, n: int, locale: str) -> SlateAnswer:
    return with_titles(shop, shop.similar(item_id, n, locale))


def with_titles(shop: Shop, slate: Slate) -> SlateAnswer:
    titles = shop.titles([item.item_id for item in slate.items])
    items = [
        RecommendedItem(
            item_id=item.item_id,
            title=titles[item.item_id],
            score=item.score,
            source=item.source,
            reason=item.reason,
        )
        for item in slate.items
    ]
    return SlateAnswer(
        recommendation_id=slate.recommendation_id,
        release=slate.release,
        placement=slate.placement,
        items=items,
        degraded=list(slate.degraded),
    )
