"""What handlers ask for: the shop that `create_app` was given, a body of JSON, a query string without surprises.

Handlers and this are `async` and call the shop with `run_in_threadpool`: what FastAPI does for plain functions takes
three turns through other threads instead of one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Request

from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.web.problems import ROUTES_NEXT_STEP, NotJsonError, NotMediaError


async def shop_of(request: Request) -> Shop:
    shop: Shop = request.app.state.shop
    return shop


ShopDep = Annotated[Shop, Depends(shop_of)]


async def json_declared(request: Request) -> None:
    """NotJsonError for a body of another kind, which a web page of another origin could send without asking first."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise NotJsonError(
            "The body is not declared as JSON.",
            where="Content-Type",
            next_step="Send the header Content-Type: application/json.",
        )


async def media_declared(request: Request) -> Literal["image", "audio"]:
    """What the body is declared as. NotMediaError where it is neither picture nor sound."""
    match request.headers.get("content-type", "").strip().lower().partition("/")[0]:
        case "image":
            return "image"
        case "audio":
            return "audio"
    raise NotMediaError(
        "The body is declared neither as a picture nor as sound.",
        where="Content-Type",
        next_step="Send the header Content-Type: image/jpeg or audio/wav.",
    )


async def no_parameters(request: Request) -> None:
    """For routes that take none in the query string: CallerError names the first there is."""
    for name in request.query_params:
        raise CallerError(f"The route takes no parameter {name!r}.", where="query", next_step=ROUTES_NEXT_STEP)
