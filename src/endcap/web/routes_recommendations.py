"""Asking for slates."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from endcap.app.runtime import Shop
from endcap.core.types import Event, Query
from endcap.web.answers import encoded, in_turn, slate_of
from endcap.web.decoding import body, parameters
from endcap.web.deps import ShopDep
from endcap.web.messages import RecommendIn, RecommendParams, SimilarParams, SlateAnswer
from endcap.web.openapi import gives, takes_body, takes_query
from endcap.web.problems import error_responses

router = APIRouter(tags=["recommendations"])
ANSWERS = gives(SlateAnswer) | error_responses(404, 422, 503)


@router.get("/v1/recommendations", summary="Recommend", responses=ANSWERS, openapi_extra=takes_query(RecommendParams))
async def recommend(request: Request, shop: ShopDep) -> Response:
    """A slate for a shopper, or for a stranger where `user_id` is missing or unknown.

    For example `/v1/recommendations?user_id=42&n=5&placement=cart&cart=1082185,995242`. Items that are hidden, out of
    stock or excluded never appear; the list has `n` items wherever the shop has as many that may be shown. For more of
    the same send the `recommendation_id` as `after`: what was shown does not come again.
    """
    asked = parameters(request, RecommendParams)
    query = Query(
        user_id=asked.user_id or None,
        session_id=asked.session_id or None,
        placement=asked.placement,
        n=asked.n,
        item_id=asked.item_id or None,
        cart=tuple(asked.cart),
        exclude=tuple(asked.exclude),
        categories=tuple(asked.category),
        brands=tuple(asked.brand),
        min_price=asked.min_price,
        max_price=asked.max_price,
        hide_bought=asked.hide_bought,
        after=asked.after or None,
        budget_ms=asked.budget_ms,
        locale=asked.locale,
    )
    return await slate_of(request, shop, query)


@router.post(
    "/v1/recommendations",
    summary="Recommend, with everything a query can hold",
    responses=ANSWERS | error_responses(408, 413, 415),
    openapi_extra=takes_body(RecommendIn),
)
async def recommend_query(request: Request, shop: ShopDep) -> Response:
    """As the GET route, with lists of any ids, acts that are not recorded, and a moment of one's own."""
    query = _query(await body(request, RecommendIn), shop)
    return await slate_of(request, shop, query, await request.body())


@router.get(
    "/v1/items/{item_id:path}/similar",
    summary="Items to show beside one",
    responses=ANSWERS,
    openapi_extra=takes_query(SimilarParams),
)
async def similar(request: Request, shop: ShopDep, item_id: str) -> Response:
    """What goes with an item, for no shopper in particular. 404 for an item that the release does not know."""
    asked = parameters(request, SimilarParams)
    return await in_turn(request, shop, lambda: encoded(shop.similar(item_id, asked.n, asked.locale)))


def _query(asked: RecommendIn, shop: Shop) -> Query:
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
    only = asked.filters
    return Query(
        user_id=asked.user_id or None,
        session_id=asked.session_id or None,
        placement=asked.placement,
        n=asked.n,
        now_ms=asked.now_ms,
        item_id=asked.item_id or None,
        cart=tuple(asked.cart),
        session_events=acts,
        exclude=tuple(asked.exclude),
        categories=tuple(only.categories),
        brands=tuple(only.brands),
        attributes=tuple(only.attributes.items()),
        min_price=only.min_price,
        max_price=only.max_price,
        hide_bought=asked.hide_bought,
        after=asked.after or None,
        budget_ms=asked.budget_ms,
        locale=asked.locale,
    )
