"""The routes that are asked most are answered without FastAPI's way to a handler.

Finding a route among all, resolving what its handler depends on and opening stacks of what may have to be closed takes
as long as everything else that is done for a request around its handler. These handlers need none of it: they take
the request and the shop. The routes stay FastAPI's in every other respect, above all in the document.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from endcap.core.errors import EndcapError
from endcap.web.problems import problem_of

TAKEN = ["request", "shop"]


class Direct:
    """Innermost: calls the handlers of some routes by itself, and leaves every other request to the application."""

    def __init__(self, app: ASGIApp, routes: Iterable[APIRoute]) -> None:
        """ValueError for a route whose path is not fixed, or whose handler takes more than (request, shop)."""
        self.app = app
        self._routes: dict[tuple[str, str], APIRoute] = {}
        for route in routes:
            if "{" in route.path or route.dependencies or list(signature(route.endpoint).parameters) != TAKEN:
                raise ValueError(f"{route.path} needs more than the request and the shop, which only FastAPI provides")
            self._routes |= {(method, route.path): route for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None or scope.get("root_path"):
            await self.app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request, scope["state"]["shop"])
        except (EndcapError, OSError) as error:
            response = problem_of(request, error)
        await response(scope, receive, send)
