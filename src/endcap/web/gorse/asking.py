"""What the routes of Gorse have in common: who is asked, which page, and 400 where ours would be 422."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from endcap.app.gorse import Gorse
from endcap.app.keys import Scope
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.web.problems import ROUTES_NEXT_STEP, error_responses, sentence

MOST = 1000


class BadRequestError(CallerError):
    """The request is wrong, in the status that Gorse has for it."""

    http_status = 400


class NotAllowedError(CallerError):
    """The key may read but not write."""

    http_status = 403


class GorseRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                details = [{**detail, "loc": detail["loc"][1:]} for detail in error.errors()]
                where = ".".join(str(part) for part in details[0]["loc"]) or "body"
                raise BadRequestError(sentence(details), where=where, next_step=ROUTES_NEXT_STEP) from error
            except CallerError as error:
                if error.http_status != CallerError.http_status:
                    raise
                raise BadRequestError(error.what, where=error.where, next_step=error.next_step) from error

        return answered


def gorse_router() -> APIRouter:
    return APIRouter(prefix="/api", tags=["gorse"], responses=error_responses(400, 503), route_class=GorseRoute)


async def gorse_of(request: Request) -> Gorse:
    """Of the shop that the request reaches; the same for all its requests."""
    known: WeakKeyDictionary[Shop, Gorse] = request.app.state.gorse
    shop: Shop = request.state.shop
    if shop not in known:
        known[shop] = Gorse(shop)
    return known[shop]


GorseDep = Annotated[Gorse, Depends(gorse_of)]
N = Annotated[int, Query(description="How many.")]
Offset = Annotated[int, Query(description="How many to pass over.")]
PageN = Annotated[int, Query(ge=1, le=MOST, description="How many.")]
Cursor = Annotated[str, Query(max_length=20, description="Of the page before; empty for the first.")]


def place_of(cursor: str) -> int:
    """The place that a cursor stands for. CallerError for one that is not ours."""
    if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < len(str(2**63))):
        raise CallerError(
            f"{cursor!r} is no cursor.", where="cursor", next_step="Send the Cursor of the page before, or none."
        )
    return int(cursor or 0)


def cursor_of(place: int) -> str:
    return str(place) if place else ""


def check_may_write(request: Request) -> None:
    """For what a GET route records. NotAllowedError for a key without the scope `write`, and for the page of another
    site, which a browser lets ask, though not see, what a server without keys answers."""
    shop: Shop = request.state.shop
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise NotAllowedError(
            "A page of another site asks for a write-back.",
            where="write-back-type",
            next_step="Have the shop's server ask, or send the feedback with POST /api/feedback.",
        )
    key = shop.keys.known().get(request.state.key_id)
    if request.state.key_id and (key is None or Scope.WRITE not in key.scopes):
        raise NotAllowedError(
            "The API key lacks the scope write, and a write-back records feedback.",
            where="write-back-type",
            next_step="Use a key that was made with --scopes read,write, or leave it out.",
        )
