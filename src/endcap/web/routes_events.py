"""Recording what shoppers do."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from endcap.app.runtime import Shop
from endcap.web.deps import ShopDep, json_declared, no_parameters
from endcap.web.problems import error_responses, problem_response
from endcap.web.schemas import EventsAnswer
from endcap.web.wire import parse_events

router = APIRouter(tags=["events"])
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [{"$ref": "#/components/schemas/EventIn"}, {"$ref": "#/components/schemas/EventsIn"}]
                },
                "example": {"event_type": "add_to_cart", "user_id": "42", "item_id": "1082185"},
            }
        },
    }
}


@router.post(
    "/v1/events",
    summary="Record events",
    response_model=EventsAnswer,
    responses=error_responses(408, 413, 415, 422, 503),
    openapi_extra=BODY,
    dependencies=[Depends(no_parameters), Depends(json_declared)],
)
async def record_events(request: Request, shop: ShopDep) -> JSONResponse:
    """One event, or a batch of at most 1,000 as `{"events": [...]}`.

    Each event is judged on its own: good ones are recorded, bad ones come back in `rejected` with the reason. When the
    answer arrives the accepted events are on disk, and the next recommendation takes them into account. Where every
    event is bad the status is 422. Sending an `event_id` again changes nothing, so a request may be repeated.
    """
    return await run_in_threadpool(_record, shop, await request.body())


def _record(shop: Shop, body: bytes) -> JSONResponse:
    parsed = parse_events(body, shop.clock())
    rejected = [entry.model_dump() for entry in parsed.rejected]
    if not parsed.events:
        first = parsed.rejected[0]
        what = f"None of the events can be recorded. The first: {first.reason}"
        return problem_response(422, what, f"events[{first.position}]", "Mend them and send again.", rejected=rejected)
    appended = shop.record(*parsed.events)
    return JSONResponse({"accepted": appended.accepted, "duplicates": appended.duplicates, "rejected": rejected})
