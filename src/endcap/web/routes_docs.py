"""The routes as one page, made here: nothing is loaded from another host, and no script runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { background: #f4f4f2; padding: .75rem; overflow-x: auto; }
h2 { font-size: 1.1rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; } td { padding: .15rem .75rem .15rem 0; vertical-align: top; }
"""


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    document = request.app.openapi()
    parts = [f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"]
    parts.append(f"<p>{escape(document['info']['description'])} As a document: <a href=/openapi.json>/openapi.json</a>")
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            parts += _route(f"{method.upper()} {path}", route, document["components"]["schemas"])
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Endcap</title><style>{STYLE}</style>"
    return HTMLResponse(page + "\n".join(parts), headers={"Content-Security-Policy": POLICY})


def _route(title: str, route: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(title)}</code> {escape(route.get('summary', ''))}</h2>"
    yield from (f"<p>{escape(text)}</p>" for text in route.get("description", "").split("\n\n"))
    rows = [(p["name"], p.get("description", "")) for p in route.get("parameters", [])]
    if rows:
        cells = (f"<tr><td><code>{escape(name)}</code><td>{escape(meaning)}" for name, meaning in rows)
        yield f"<table>{''.join(cells)}</table>"
    yield from _examples("Send", route.get("requestBody", {}), schemas)
    yield from _examples("Get", route.get("responses", {}).get("200", {}), schemas)


def _examples(label: str, content: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    schema = content.get("content", {}).get("application/json", {}).get("schema", {})
    for choice in schema.get("oneOf", [schema]):
        for example in schemas.get(choice.get("$ref", "").rpartition("/")[2], {}).get("examples", []):
            yield f"<p>{label}</p><pre>{escape(json.dumps(example, indent=2))}</pre>"
