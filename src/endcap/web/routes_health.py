"""For whatever watches over the process."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from endcap import __version__
from endcap.web.deps import ShopDep, no_parameters
from endcap.web.problems import error_responses
from endcap.web.schemas import LiveAnswer, ReadyAnswer

router = APIRouter(tags=["health"], responses=error_responses(422), dependencies=[Depends(no_parameters)])


@router.get("/health/live", summary="Is the process alive?")
async def live() -> LiveAnswer:
    """200 as long as the process answers at all. Restart it when this fails."""
    return LiveAnswer(status="ok", version=__version__)


@router.get("/health/ready", summary="Can it answer?", responses={503: {"model": ReadyAnswer}})
async def ready(shop: ShopDep, response: Response) -> ReadyAnswer:
    """200 once a release is loaded and answers; otherwise 503 with the problem. Send no shoppers before.

    What it answers without, because it is away, is in `degraded`.
    """
    health = await run_in_threadpool(shop.health)
    response.status_code = 200 if health.ready else 503
    return ReadyAnswer.model_validate(asdict(health))
