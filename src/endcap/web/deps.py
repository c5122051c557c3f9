"""What handlers ask for: the shop that the request reaches, a body of JSON, a query string without surprises.

Handlers and this are `async` and call the shop with `run_in_threadpool`: what FastAPI does for plain functions takes
three turns through other threads instead of one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Request

from endcap.app.runtime import Shop
from endcap.web import decoding
from endcap.web.problems import NotMediaError


async def shop_of(request: Request) -> Shop:
    """The shop that the request may reach, as its key says; the only one where no key is needed."""
    shop: Shop = request.state.shop
    return shop


ShopDep = Annotated[Shop, Depends(shop_of)]


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


async def json_declared(request: Request) -> None:
    """For routes whose body FastAPI reads, and for those that need none but change something."""
    decoding.json_declared(request)


async def no_parameters(request: Request) -> None:
    """For routes that take none in the query string."""
    decoding.no_parameters(request)
