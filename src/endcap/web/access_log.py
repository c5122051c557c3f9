"""The one line that is written for each request.

What shoppers are called and look for stands in paths, query strings and bodies; keys stand in headers. None of these is
logged: a route goes by its template. What a fault may say of itself is in `core.faults`.
"""

from __future__ import annotations

import logging

from starlette.types import Scope

LOG = logging.getLogger("endcap.access")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "-"


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """method, route template, status, duration, request id, key id ("-" where none was needed); nothing else, ever."""
    if not LOG.isEnabledFor(logging.INFO):
        return
    state = scope["state"]
    said = {
        "method": method_of(scope),
        "route": route_of(scope),
        "status": status,
        "duration_ms": round(1000 * seconds, 3),
        "request_id": state["request_id"],
        "key_id": state.get("key_id") or "-",
    }
    LOG.info(
        "%(method)s %(route)s %(status)d %(duration_ms).1f ms, request %(request_id)s, key %(key_id)s",
        said,
        extra={"request": said},
    )


def method_of(scope: Scope) -> str:
    """What is no method of ours could be anything."""
    method: str = scope["method"]
    return method if method in METHODS else "?"


def route_of(scope: Scope) -> str:
    """'/v1/users/{user_id}' and never '/v1/users/42'; "-" where the path leads to no route."""
    route: str = getattr(scope.get("route"), "path_format", NO_ROUTE)
    return route
