"""Hot routes are answered past the framework, and by nothing that it alone would have resolved."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from endcap.core.errors import CallerError
from endcap.web.direct import Direct
from endcap.web.server import DIRECT, create_app


async def plain(request: Request, shop: str) -> Response:
    if shop == "wrong":
        raise CallerError("This is wrong.", where="there", next_step="Do it again.")
    if shop == "broken":
        raise OSError(2, "of no disk")
    return PlainTextResponse(f"{request.method} {shop}")


async def of_path(request: Request, shop: str, item_id: str) -> Response:
    return PlainTextResponse(item_id)


async def known() -> str:
    return "resolved"


async def resolved(request: Request, shop: Annotated[str, Depends(known)], more: str = "") -> Response:
    return PlainTextResponse(shop)


def asked(shop: str, path: str = "/hot", method: str = "GET", root: str = "") -> tuple[int, str]:
    app = FastAPI()
    app.add_api_route("/hot", plain, methods=["GET", "POST"])
    direct = Direct(app, [APIRoute("/hot", plain, methods=["GET", "POST"])])

    async def outer(scope, receive, send):
        if scope["type"] == "http":
            scope["state"] = {"shop": shop, "request_id": "r"}
            scope["app"] = app
        await direct(scope, receive, send)

    answer = TestClient(outer, root_path=root, raise_server_exceptions=True).request(method, path)
    return answer.status_code, answer.text


def test_a_hot_route_is_answered_and_others_are_left_to_the_application():
    assert asked("mine") == (200, "GET mine")
    assert asked("mine", method="POST") == (200, "POST mine")
    assert asked("mine", method="DELETE")[0] == 405
    assert asked("mine", "/cold")[0] == 404


def test_errors_of_ours_are_told_and_others_are_raised():
    status, text = asked("wrong")
    assert (status, "This is wrong." in text) == (422, True)
    with pytest.raises(OSError, match="of no disk"):
        asked("broken")


@pytest.mark.parametrize(
    "route",
    [
        APIRoute("/items/{item_id}", of_path),
        APIRoute("/more", resolved),
        APIRoute("/hot", plain, dependencies=[Depends(known)]),
    ],
    ids=["a path with names", "a handler that takes more", "dependencies"],
)
def test_a_route_that_needs_the_framework_is_refused(route):
    with pytest.raises(ValueError, match="needs more"):
        Direct(FastAPI(), [route])


def test_the_hot_routes_are_there(shop):
    there = {route.path for route in create_app(shop).state.routes}
    assert there >= DIRECT
