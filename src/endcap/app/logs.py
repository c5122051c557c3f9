"""How a server's log is written: lines for people, or a JSON object a line for machines, to the standard error.

Every line that comes of a request carries its id, faults and their tracebacks among them. What a line may hold of a
request is for whoever writes it to decide; here it is only given a form.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TextIO

import msgspec
from pydantic import Field

from endcap.core.section import Section

CURRENT_REQUEST: ContextVar[str] = ContextVar("endcap_request_id", default="")
FIELDS = "request"  # the name under which a line gives its fields, as `extra`


class LogConfig(Section):
    format: Literal["text", "json"] = Field(
        "text", description='How the server writes its log: "text", lines to read, or "json", an object a line.'
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description='The least that is logged; "info" has a line for each request.'
    )


def configure(config: LogConfig, stream: TextIO | None = None) -> None:
    """Logging as the section says, from now on. stream: None is the standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if config.format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.INFO, _number(config.level)))  # what libraries have to tell of their insides is left out
    logging.getLogger("endcap").setLevel(_number(config.level))


@contextmanager
def configured(config: LogConfig, stream: TextIO | None = None) -> Iterator[None]:
    """Logging as the section says, for as long as it lasts; what was before comes back."""
    root, ours = logging.getLogger(), logging.getLogger("endcap")
    level, handlers, was = root.level, root.handlers, ours.level
    configure(config, stream)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        ours.setLevel(was)


class TextLines(logging.Formatter):
    """`2026-01-01T12:00:00.000Z INFO endcap.web.guard: message [request 5c1f]`, then the traceback of a fault."""

    def format(self, record: logging.LogRecord) -> str:
        request_id = _request_id(record)
        message = _one_line(record.getMessage())
        line = f"{_time(record)} {record.levelname} {record.name}: {message}"
        if request_id and request_id not in message:
            line += f" [request {request_id}]"
        return "\n".join([line, *_faults(self, record)])


class JsonLines(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, `request_id` where there is one, the fields that are
    given, `exception` with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = _request_id(record)
        if request_id:
            said["request_id"] = request_id
        said |= _fields(record)
        faults = _faults(self, record)
        if faults:
            said["exception"] = "\n".join(faults)
        try:
            return self._encoder.encode(said).decode()
        except (UnicodeEncodeError, TypeError):
            plain = {name: ascii(value) if isinstance(value, str) else str(value) for name, value in said.items()}
            return self._encoder.encode(plain).decode()


def _request_id(record: logging.LogRecord) -> str:
    return str(_fields(record).get("request_id", "")) or CURRENT_REQUEST.get()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = getattr(record, FIELDS, None)
    return given if isinstance(given, dict) else {}


def _faults(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    """The traceback and the stack that a record has."""
    found = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    return [*found, formatter.formatStack(record.stack_info)] if record.stack_info else found


def _time(record: logging.LogRecord) -> str:
    second, millisecond = divmod(round(1000 * record.created), 1000)
    return f"{_second(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=1)
def _second(since_1970: int) -> str:
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _one_line(text: str) -> str:
    """So that no message can pass for another line of the log."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
