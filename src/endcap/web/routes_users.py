"""What is known of a shopper."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool

from endcap.web.deps import ShopDep, no_parameters
from endcap.web.problems import error_responses
from endcap.web.schemas import UserAnswer

router = APIRouter(tags=["users"], responses=error_responses(404, 422, 503), dependencies=[Depends(no_parameters)])


@router.get("/v1/users/{user_id:path}", summary="What is known of a shopper")
async def user(shop: ShopDep, user_id: str) -> UserAnswer:
    """Attributes, the cart as the events leave it, and what they buy most. 404 for someone never heard of."""
    return UserAnswer.model_validate(asdict(await run_in_threadpool(shop.user, user_id)))
