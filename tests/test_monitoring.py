"""The dashboard, the alerts and the page about them speak of metrics that there are, and the page of all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from endcap.app.runtime import Shop
from endcap.web.server import create_app

DOCS = Path(__file__).parents[1] / "docs"
METRIC = re.compile(r"\b(?:endcap|process)_[a-z_]+")


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> set[str]:
    """The names of all series of a running app."""
    with Shop.open(tmp_path_factory.mktemp("seen") / "shop") as shop, TestClient(create_app(shop)) as client:
        text = client.get("/metrics").text
    kinds = re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in kinds for part in parts.get(kind, ("",))}


def expressions() -> list[str]:
    board = json.loads((DOCS / "monitoring" / "grafana.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [entry["query"]["query"] for entry in board["templating"]["list"] if entry["type"] == "query"]
    alerts = (DOCS / "monitoring" / "alerts.yml").read_text("utf-8")
    rules = re.findall(r"expr: (?:>-\n((?:          .*\n)+)|(.*)\n)", alerts)
    assert len(rules) == alerts.count("- alert:")
    return asked + [" ".join((folded or plain).split()) for folded, plain in rules]


def test_dashboard_and_alerts_ask_for_metrics_that_there_are(told):
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert len(asked) > 20
    assert sorted(asked - told) == []


def test_expressions_are_balanced():
    for expression in expressions():
        for opened, closed in ("()", "[]", "{}"):
            assert expression.count(opened) == expression.count(closed), expression


def test_every_metric_is_explained(told):
    page = (DOCS / "monitoring.md").read_text("utf-8")
    rows = set(METRIC.findall("\n".join(line for line in page.splitlines() if line.startswith("| `"))))
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told if name.startswith("endcap_")}
    assert sorted(ours - rows) == []
    assert sorted(name for name in rows - ours if name.startswith("endcap_")) == []


def test_every_alert_says_what_to_do():
    page = (DOCS / "monitoring.md").read_text("utf-8").partition("## When an alert fires")[2]
    alerts = re.findall(r"- alert: (\w+)", (DOCS / "monitoring" / "alerts.yml").read_text("utf-8"))
    assert sorted(alerts) == sorted(set(re.findall(r"`(Endcap\w+)`", page)))


def test_panels_do_not_lie_on_one_another():
    board = json.loads((DOCS / "monitoring" / "grafana.json").read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
