"""The OpenAPI document, completed by what holds for all routes: keys, limits, and how they are refused."""

from __future__ import annotations

from typing import Any

from endcap.web.openapi import SCHEMAS
from endcap.web.problems import ErrorAnswer
from endcap.web.scopes import scope_of

REFUSALS = {
    "401": "No API key, or one that is not known",
    "403": "A key without the scope that the route needs",
    "429": "Too often; `Retry-After` says when to ask again",
    "503": "The store or a release cannot be used, or too many requests at a time",
}
BODY_REFUSALS = {
    "400": "The connection was closed before the body was complete",
    "408": "The body took too long",
    "413": "The body is too large",
    "415": "The body is of another kind, or compressed",
}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key from `endcap keys create`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}


def completed(document: dict[str, Any], max_batch: int) -> dict[str, Any]:
    """max_batch: events in a batch."""
    components = document["components"]
    schema = ErrorAnswer.model_json_schema(ref_template=f"{SCHEMAS}{{model}}")
    components["schemas"] |= schema.pop("$defs", {}) | {"ErrorAnswer": schema}
    components["schemas"]["EventsIn"]["properties"]["events"]["maxItems"] = max_batch
    components["securitySchemes"] = SCHEMES
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            _complete(path, method.upper(), route)
    return document


def _complete(path: str, method: str, route: dict[str, Any]) -> None:
    needed = scope_of(method, path)
    if needed is None:
        return
    route["security"] = [{"bearer": []}, {"header": []}]
    route["description"] = f"{route.get('description', '')}\n\nNeeds a key with the scope `{needed}`.".strip()
    answer = {"application/json": {"schema": {"$ref": f"{SCHEMAS}ErrorAnswer"}}}
    for status, meaning in (REFUSALS | (BODY_REFUSALS if "requestBody" in route else {})).items():
        route["responses"].setdefault(status, {"description": meaning, "content": answer})
