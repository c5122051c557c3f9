"""Recording what shoppers do."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from endcap.app.runtime import Shop
from endcap.web.decoding import json_declared, no_parameters
from endcap.web.deps import ShopDep
from endcap.web.messages import EventIn, EventsAnswer, EventsIn, Rejected
from endcap.web.openapi import gives, takes_body
from endcap.web.problems import error_responses, problem_response
from endcap.web.wire import parse_events

router = APIRouter(tags=["events"])
EXAMPLE = {"event_type": "add_to_cart", "user_id": "42", "item_id": "1082185"}
_ENCODER = msgspec.json.Encoder()


@router.post(
    "/v1/events",
    summary="Record events",
    responses=gives(EventsAnswer) | error_responses(408, 413, 415, 422, 429, 503),
    openapi_extra=takes_body(EventIn, EventsIn, example=EXAMPLE),
)
async def record_events(request: Request, shop: ShopDep) -> Response:
    """One event, or a batch of at most 1,000 as `{"events": [...]}`.

    Each event is judged on its own: good ones are recorded, bad ones come back in `rejected` with the reason. When the
    answer arrives the accepted events are on disk, and the next recommendation takes them into account. Where every
    event is bad the status is 422. Sending an `event_id` again changes nothing, so a request may be repeated.
    """
    no_parameters(request)
    json_declared(request)
    return await run_in_threadpool(_record, shop, await request.body(), request.state.owe)


def _record(shop: Shop, body: bytes, owe: Callable[[int], None]) -> Response:
    parsed = parse_events(body, shop.clock(), shop.config.limits.max_batch)
    owe(len(parsed.events) + len(parsed.rejected))
    if parsed.rejected and shop.watch is not None:
        shop.watch.refused([""] * len(parsed.rejected))
    if not parsed.events:
        return _all_wrong(parsed.rejected)
    appended = shop.record(*parsed.events)
    answer = EventsAnswer(appended.accepted, appended.duplicates, parsed.rejected)
    return Response(_ENCODER.encode(answer), media_type="application/json")


def _all_wrong(rejected: list[Rejected]) -> JSONResponse:
    first = rejected[0]
    what = f"None of the events can be recorded. The first: {first.reason}"
    each = msgspec.to_builtins(rejected)
    return problem_response(422, what, f"events[{first.position}]", "Mend them and send again.", rejected=each)
