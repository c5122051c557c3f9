"""For whatever watches over the process."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from endcap import __version__
from endcap.web.deps import no_parameters
from endcap.web.problems import error_responses
from endcap.web.schemas import LiveAnswer, ReadyAnswer

router = APIRouter(tags=["health"], responses=error_responses(422), dependencies=[Depends(no_parameters)])


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", summary="Is the process alive?")
async def live() -> LiveAnswer:
    """200 as long as the process answers at all. Restart it when this fails."""
    return LiveAnswer(status="ok", version=__version__)


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", summary="Can it answer?", responses={503: {"model": ReadyAnswer}})
async def ready(request: Request, response: Response) -> ReadyAnswer:
    """200 once a release is loaded and answers; otherwise 503 with the problem. Send no shoppers before.

    What it answers without, because it is away, is in `degraded`. Without a key, where keys are needed, the answer says
    yes or no for all shops together, and the rest is null.
    """
    asked = getattr(request.state, "shop_asked", None)
    shops = request.app.state.tenants.shops if asked is None else (asked,)
    found = await run_in_threadpool(lambda: [shop.health() for shop in shops])
    is_ready = all(health.ready for health in found)
    response.status_code = 200 if is_ready else 503
    if request.state.is_known:
        return ReadyAnswer.model_validate(asdict(found[0]))
    return ReadyAnswer(ready=is_ready, problem="" if is_ready else "Not ready. Ask with a key to hear why.")
