"""Web pages of other sites that may call from a browser: those that are named, and no other (CORS)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from endcap.web.problems import problem_response

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-Request-Id")
EXPOSED = ("Retry-After", "X-Request-Id")


class Origins(CORSMiddleware):
    """Answers browsers that ask first. No cookies: keys are sent by scripts, or not at all."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=METHODS, allow_headers=HEADERS, expose_headers=EXPOSED
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return Response(status_code=204, headers=_without_type(answer))
        what = f"{bytes(answer.body).decode()}."
        return problem_response(400, what, "Origin", "Name the site under [serve] origins.", {"Vary": "Origin"})


def _without_type(answer: Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
