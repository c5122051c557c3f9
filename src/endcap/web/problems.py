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
from starlette.routing import Match

from endcap.core.errors import CallerError, EndcapError, TooManyError, disk_error

LOG = logging.getLogger(__name__)
JSON_NEXT_STEP = "Send one JSON object in UTF-8."
ROUTES_NEXT_STEP = "All routes and fields are at /docs."


class NotJsonError(CallerError):
    """The body is not declared as JSON."""

    http_status = 415


class NotMediaError(CallerError):
    """The body is declared neither as a picture nor as sound."""

    http_status = 415


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


def endcap_problem(error: EndcapError, request_id: str) -> JSONResponse:
    """The answer to an error of ours; what is our fault is logged."""
    if error.http_status >= 500:
        LOG.error("Request %s: %s", request_id, error)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, TooManyError) else None
    return problem_response(error.http_status, error.what, error.where, error.next_step, headers)


def problem_of(request: Request, error: EndcapError | OSError) -> JSONResponse:
    """The answer to an error that a handler raised. Raises one of the system that has nothing to do with the disk."""
    said = disk_error(error) if isinstance(error, OSError) else error
    if said is None:
        raise error
    request.state.error = type(said).__name__
    return endcap_problem(said, request.state.request_id)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(EndcapError, _fault)
    app.add_exception_handler(OSError, _fault)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


def sentence(errors: list[Any]) -> str:
    """What pydantic found, as one sentence with the fields named."""
    found = (f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in errors)
    return "; ".join(text.removeprefix(": ").removesuffix(".") for text in found) + "."


async def _fault(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EndcapError | OSError)
    return problem_of(request, error)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    request.state.error = type(error).__name__
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        return problem_response(422, f"The body is not JSON: {found[0]['ctx']['error']}.", "body", JSON_NEXT_STEP)
    details = [{**detail, "loc": detail["loc"][1:]} for detail in found]
    where = str(found[0]["loc"][0]) if found else ""
    return problem_response(422, sentence(details), where, ROUTES_NEXT_STEP)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.scope['path']}"
    if error.status_code == 400:  # FastAPI found a body that is not even text
        return problem_response(422, "The body is not JSON.", "body", JSON_NEXT_STEP)
    headers = dict(error.headers) if error.headers else {}
    what = "There is no such route." if error.status_code == 404 else str(error.detail)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
        what = f"The route takes {headers['Allow']} only."
    return problem_response(error.status_code, what, where, ROUTES_NEXT_STEP, headers)


def _methods(request: Request) -> list[str]:
    """What the path can be asked for, over all routes that share it."""
    routes = [route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods})
