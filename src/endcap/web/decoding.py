"""Bodies and query strings into messages, and what is wrong with them in sentences."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from endcap.core.errors import CallerError
from endcap.web.problems import JSON_NEXT_STEP, ROUTES_NEXT_STEP, NotJsonError

Message = TypeVar("Message", bound=msgspec.Struct)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)


def json_object(content: bytes) -> dict[str, Any]:
    """CallerError for what is no JSON object."""
    try:
        given = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CallerError(f"The body is not JSON: {error}.", where="body", next_step=JSON_NEXT_STEP) from error
    if not isinstance(given, dict):
        raise CallerError("The body is no object.", where="body", next_step=JSON_NEXT_STEP)
    return given


async def body(request: Request, kind: type[Message]) -> Message:
    """The message that a request's body holds. CallerError names the field that is wrong."""
    no_parameters(request)
    json_declared(request)
    return message(json_object(await request.body()), kind)


def parameters(request: Request, kind: type[Message]) -> Message:
    """The message that a request's query string holds. Of a value given twice the last counts; lists are repeated or
    separated by commas."""
    given: dict[str, Any] = {}
    try:
        pairs = parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise CallerError("The query string is not UTF-8.", where="query", next_step=ROUTES_NEXT_STEP) from error
    listed = _lists(kind)
    for name, value in pairs:
        if name in listed:
            given.setdefault(name, []).extend(part for part in value.split(",") if part)
        else:
            given[name] = value
    return message(given, kind, strict=False)


def message(given: Any, kind: type[Message], *, strict: bool = True) -> Message:
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        field, what = told(error)
        raise CallerError(
            f"{field}: {what}." if field else f"{what}.", where=field, next_step=ROUTES_NEXT_STEP
        ) from error


def told(error: msgspec.ValidationError) -> tuple[str, str]:
    """The field that is wrong, "" for the whole, and what is wrong with it."""
    what, _, path = str(error).partition(" - at `$")
    inside = path.removesuffix("`").lstrip(".")
    for form, said in ((_MISSING, "Field required"), (_UNKNOWN, "There is no such field")):
        if found := form.fullmatch(what):
            return ".".join(filter(None, (inside, found["name"]))), said
    return inside, what


def json_declared(request: Request) -> None:
    """NotJsonError for a body of another kind, which a web page of another origin could send without asking first."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise NotJsonError(
            "The body is not declared as JSON.",
            where="Content-Type",
            next_step="Send the header Content-Type: application/json.",
        )


def no_parameters(request: Request) -> None:
    """CallerError names the first parameter of a query string that should be empty."""
    if request.scope["query_string"]:
        for name in request.query_params:
            raise CallerError(f"The route takes no parameter {name!r}.", where="query", next_step=ROUTES_NEXT_STEP)


@cache
def _lists(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The fields that are lists."""
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    return frozenset(
        field.encode_name for field in described.fields if isinstance(_bare(field.type), msgspec.inspect.ListType)
    )


def _bare(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    return kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind
