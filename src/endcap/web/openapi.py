"""The parts of the OpenAPI document that FastAPI cannot read from the routes: messages of msgspec.

A route whose handler decodes by itself says what it takes and gives with `takes_query`, `takes_body` and `gives`; the
schemas of all `MESSAGES` are added when the document is made.
"""

from __future__ import annotations

from typing import Any

import msgspec

from endcap.web import messages

SCHEMAS = "#/components/schemas/"
MESSAGES = (
    messages.EventIn,
    messages.EventsIn,
    messages.EventsAnswer,
    messages.RecommendIn,
    messages.SlateAnswer,
    messages.MediaAnswer,
)
EXAMPLES: dict[str, list[Any]] = {
    "EventIn": [
        {"event_id": "e-1", "event_type": "add_to_cart", "user_id": "42", "item_id": "1082185"},
        {
            "event_id": "order-77",
            "event_type": "purchase",
            "user_id": "42",
            "session_id": "order-77",
            "items": [{"item_id": "1082185", "quantity": 2, "price": 0.99}, {"item_id": "995242", "price": 1.29}],
            "currency": "USD",
        },
    ],
    "EventsAnswer": [
        {
            "accepted": ["e-1"],
            "duplicates": ["e-0"],
            "rejected": [
                {"position": 2, "reason": "user_id: Neither user_id nor session_id is given. Send one of them."}
            ],
        }
    ],
    "RecommendIn": [
        {
            "user_id": "42",
            "placement": "cart",
            "n": 5,
            "cart": ["1082185"],
            "exclude": ["995242"],
            "filters": {"categories": ["Produce"], "max_price": 5.0},
            "session_events": [{"event_type": "view", "item_id": "1029743"}],
        }
    ],
    "SlateAnswer": [
        {
            "recommendation_id": "r-AQBpfZo8q1n0B9cJ2b4lzw.3mT1Aw",
            "release": "20260101T120000-3fa9c1",
            "placement": "home",
            "items": [
                {
                    "item_id": "1082185",
                    "title": "Bananas",
                    "score": 1.92,
                    "source": "buy_again",
                    "reason": "You buy this about every 7 days",
                }
            ],
            "degraded": [],
        }
    ],
}


def takes_query(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """For `openapi_extra` of a route: the fields of a message as parameters of the query string."""
    schema = _schemas((kind,))[kind.__name__]
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name in schema["required"],
                "description": field.pop("description", ""),
                "schema": field,
            }
            for name, field in schema["properties"].items()
        ]
    }


def takes_body(*kinds: type[msgspec.Struct], example: Any = None) -> dict[str, Any]:
    """For `openapi_extra` of a route: one of the messages as JSON."""
    choices = [{"$ref": SCHEMAS + kind.__name__} for kind in kinds]
    content: dict[str, Any] = {"schema": choices[0] if len(choices) == 1 else {"oneOf": choices}}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def gives(kind: type[msgspec.Struct]) -> dict[int | str, dict[str, Any]]:
    """For `responses` of a route: what a success holds."""
    schema = {"$ref": SCHEMAS + kind.__name__}
    return {200: {"description": "Success", "content": {"application/json": {"schema": schema}}}}


def with_messages(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the schemas of all messages."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in _schemas(MESSAGES).items():
        schemas[name] = {**schema, "examples": EXAMPLES[name]} if name in EXAMPLES else schema
    return document


def _schemas(kinds: tuple[type[msgspec.Struct], ...]) -> dict[str, Any]:
    _, found = msgspec.json.schema_components(kinds, ref_template=SCHEMAS + "{name}")
    return found
