"""What is known of a shopper."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool

from endcap.app import catalogue
from endcap.web.catalogue_schemas import UserIn, UserPutAnswer
from endcap.web.deps import ShopDep, json_declared, no_parameters
from endcap.web.problems import error_responses
from endcap.web.schemas import UserAnswer

router = APIRouter(tags=["users"], responses=error_responses(422, 503), dependencies=[Depends(no_parameters)])


@router.get("/v1/users/{user_id:path}", summary="What is known of a shopper", responses=error_responses(404))
async def user(shop: ShopDep, user_id: str) -> UserAnswer:
    """Attributes, the cart as the events leave it, and what they buy most. 404 for someone never heard of."""
    return UserAnswer.model_validate(asdict(await run_in_threadpool(shop.user, user_id)))


@router.put(
    "/v1/users/{user_id:path}",
    summary="Say what is known of a shopper",
    responses=error_responses(408, 413, 415),
    dependencies=[Depends(json_declared)],
)
async def put_user(shop: ShopDep, user_id: str, said: UserIn) -> UserPutAnswer:
    """Insert or replace a shopper's attributes. Events need none: whoever is named in one is known."""
    kept = await run_in_threadpool(catalogue.put_user, shop.store, user_id, said.attributes)
    return UserPutAnswer(user_id=user_id, attributes=kept)
