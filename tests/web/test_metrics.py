"""What a scrape of a running app says of the requests before it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from endcap.app.runtime import Shop
from endcap.core.slates import new_id, release_hash
from endcap.core.types import Placement
from endcap.web.server import create_app

LATENCY = "endcap_http_request_seconds_count"


@pytest.fixture
def scrape(client):
    """name, labels (but for the shop's) -> value of what is scraped now."""

    def ask(name: str, **labels: str) -> float | None:
        answer = client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                if sample.name == name and {"shop": "shop", **sample.labels} == {"shop": "shop", **labels}:
                    return sample.value
        return None

    return ask


def test_requests_are_timed_by_route_template_method_and_status(client, scrape):
    client.get("/v1/users/secret-user?x=1")
    client.get("/v1/users/nobody")
    client.get("/v1/recommendations?n=2")
    assert scrape(LATENCY, route="/v1/users/{user_id}", method="GET", status="404") == 1
    assert scrape(LATENCY, route="/v1/users/{user_id}", method="GET", status="422") == 1
    assert scrape(LATENCY, route="/v1/recommendations", method="GET", status="200") == 1
    assert "secret-user" not in client.get("/metrics").text


def test_unknown_paths_and_methods_are_one_label_each(client, scrape):
    for path in ("/a", "/b", "/wp-admin"):
        client.get(path)
    client.request("PROPFIND", "/a")
    assert scrape(LATENCY, route="unmatched", method="GET", status="404") == 3
    assert scrape(LATENCY, route="unmatched", method="OTHER", status="404") == 1


def test_answers_and_their_effects(client, scrape, shop):
    release = shop.releases.current()
    client.get("/v1/recommendations?n=2")
    client.get("/v1/search?q=dairy")
    assert scrape("endcap_answers_total", placement="home", release=release) == 1
    assert scrape("endcap_answers_total", placement="search", release=release) == 1
    slate = new_id(Placement.HOME, release_hash(release))
    clicked = {"event_type": "click", "user_id": "u", "item_id": "dairy-000", "recommendation_id": slate}
    client.post("/v1/events", json={"events": [clicked, clicked, {"event_type": "view"}]})
    assert scrape("endcap_attributed_slates_total", placement="home", release=release, kind="click") == 1
    assert scrape("endcap_events_total", type="click", outcome="accepted") == 2
    assert scrape("endcap_events_total", type="other", outcome="rejected") == 1
    assert scrape("endcap_commit_seconds_count") >= 1
    assert scrape("endcap_stage_seconds_count", stage="context") == 2
    assert scrape("endcap_stage_seconds_count", stage="encode") == 2


def test_answers_that_are_given_again(client, scrape):
    for _ in range(3):
        client.get("/v1/recommendations?n=2", headers={"Idempotency-Key": "k-1"})
    assert scrape("endcap_cache_lookups_total", cache="idempotency", outcome="miss") == 1
    assert scrape("endcap_cache_lookups_total", cache="idempotency", outcome="hit") == 2


def test_errors_and_refusals_are_counted_by_kind(client, scrape, monkeypatch, shop):
    client.get("/v1/recommendations?n=0")
    client.get("/v1/recommendations?wrong=1")
    client.post("/v1/events", content=b" " * 2_000_000, headers={"Content-Type": "application/json"})
    monkeypatch.setattr(shop, "answer_many", lambda queries: {}["secret"])
    assert client.get("/v1/recommendations").status_code == 500
    assert scrape("endcap_errors_total", kind="CallerError") == 2
    assert scrape("endcap_errors_total", kind="KeyError") == 1
    assert scrape("endcap_http_refused_total", reason="too_large") == 1


def test_the_standing_of_the_process(client, scrape, shop):
    client.get("/v1/recommendations")
    assert scrape("endcap_ready") == 1
    assert scrape("endcap_release_loaded", release=shop.releases.current()) == 1
    assert scrape("endcap_release_items") == 16
    assert scrape("endcap_log_last_seq") == shop.store.last_seq()
    assert scrape("process_resident_memory_bytes") > 0
    client.post("/v1/events", json={"event_type": "view", "user_id": "u", "item_id": "dairy-000"})
    assert scrape("endcap_log_lag_events") == 1
    client.get("/v1/recommendations", params={"user_id": "u"})
    assert scrape("endcap_log_lag_events") == 0


def test_a_broken_store_can_be_scraped(client, scrape, shop):
    shop.close()
    assert scrape("endcap_ready") == 0


def test_every_app_counts_for_itself(shop):
    with TestClient(create_app(shop)) as one:
        one.get("/nothing")
    with TestClient(create_app(shop)) as other:
        assert shop.watch is not None
        assert 'route="unmatched"' not in other.get("/metrics").text
    assert shop.watch is None


def test_only_the_first_of_several_shops_sees_the_others(folder, tmp_path):
    beside = shutil.copytree(folder, tmp_path / "beside" / "shop")
    with Shop.open(folder) as one, Shop.open(beside) as other:
        app = create_app(one, other, keys_required=True)
        with TestClient(app):
            one.recommend(n=1)
            told = [app.state.metrics.exposition(shop).decode() for shop in (one, other)]
    assert [re.findall(r'^endcap_ready\{shop="(.*)"\}', text, re.MULTILINE) for text in told] == [
        ["shop", "shop#2"],
        ["shop#2"],
    ]
    assert [len(re.findall(r"^endcap_answers_total\{", text, re.MULTILINE)) for text in told] == [1, 0]


WORKER = """
import sys
from fastapi.testclient import TestClient
from endcap.app.runtime import Shop
from endcap.web.server import create_app
with Shop.open(sys.argv[1], read_only=True) as shop, TestClient(create_app(shop)) as client:
    client.get("/v1/recommendations")
    print(client.get("/metrics").text)
"""


def test_workers_are_added_up(folder, tmp_path):
    (tmp_path / "counts").mkdir()
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "counts")}
    command = [sys.executable, "-c", WORKER, str(folder)]
    for number in (1, 2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        (answers,) = re.findall(r'^endcap_answers_total\{.*placement="home".*\} (.*)$', done.stdout, re.MULTILINE)
        assert float(answers) == number
        assert len(re.findall(r"^process_resident_memory_bytes\{pid=", done.stdout, re.MULTILINE)) == 1
        assert re.search(r"^endcap_release_loaded\{.*\} 1.0$", done.stdout, re.MULTILINE)
