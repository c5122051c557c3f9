"""Which scope a route needs. What is not named here needs `admin`, so that a new route is never open by oversight."""

from __future__ import annotations

from endcap.app.keys import Scope

OPEN = frozenset({"/health/live", "/health/ready", "/api/health/live", "/api/health/ready"})
OF_ALL_SHOPS = frozenset({"/metrics"})  # tells of the process, so a key of one shop among several may not ask
ASKING = frozenset({"GET", "HEAD"})
READS = ("/v1/recommendations", "/v1/search", "/v1/items", "/v1/users", "/docs", "/openapi.json", "/api")
POSTED_QUESTIONS = ("/v1/recommendations", "/v1/search", "/api/session")  # with what does not fit in a query string
WRITES = ("/v1/events", "/v1/items", "/v1/users", "/api")


def scope_of(method: str, path: str) -> Scope | None:
    """None: for everybody. path: decoded, as the router sees it."""
    if path in OPEN:
        return None
    if method in ASKING:
        return Scope.READ if _is_under(READS, path) else Scope.ADMIN
    if method == "POST" and _is_under(POSTED_QUESTIONS, path):
        return Scope.READ
    return Scope.WRITE if _is_under(WRITES, path) else Scope.ADMIN


def _is_under(places: tuple[str, ...], path: str) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)
