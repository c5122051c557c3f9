"""Every error in one shape: `{"error": {"what", "where", "next_step"}}`, whatever raised it."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from endcap.core.errors import EndcapError

LOG = logging.getLogger(__name__)
ROUTES_NEXT_STEP = "All routes and fields are at /docs."


class Problem(BaseModel):
    """what: a sentence. where: the field, route or file; may be empty. next_step: what to do now; may be empty."""

    what: str
    where: str
    next_step: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"error": {"what": "n is 0.", "where": "n", "next_step": "Ask for 1 to 500 items."}}]
        }
    )
    error: Problem


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the `responses` of a route: these statuses carry `ErrorAnswer`."""
    return {status: {"model": ErrorAnswer} for status in statuses}


def problem_response(
    status: int, what: str, where: str = "", next_step: str = "", headers: dict[str, str] | None = None, **rest: Any
) -> JSONResponse:
    """rest: further keys beside `error`."""
    error = {"what": what, "where": where, "next_step": next_step}
    return JSONResponse({"error": error, **rest}, status, headers)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(EndcapError, _endcap_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


def sentence(errors: list[Any]) -> str:
    """What pydantic found, as one sentence with the fields named."""
    found = (f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in errors)
    return "; ".join(text.removeprefix(": ").removesuffix(".") for text in found) + "."


async def _endcap_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EndcapError)
    if error.http_status >= 500:
        LOG.error("Request %s: %s", request.state.request_id, error)
    return problem_response(error.http_status, error.what, error.where, error.next_step)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = [{**detail, "loc": detail["loc"][1:]} for detail in error.errors()]
    where = str(error.errors()[0]["loc"][0]) if details else ""
    return problem_response(422, sentence(details), where, ROUTES_NEXT_STEP)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    what = {404: "There is no such route.", 405: "The route does not take this method."}.get(error.status_code)
    headers = dict(error.headers) if error.headers else None
    return problem_response(error.status_code, what or f"{error.detail}", where, ROUTES_NEXT_STEP, headers)
