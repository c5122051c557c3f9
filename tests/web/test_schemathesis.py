"""The app does what its OpenAPI document says, whatever is sent: no faults, and answers of the kinds it names."""

from __future__ import annotations

import shutil

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from endcap.app.runtime import Shop
from endcap.web.server import create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def keyed(trained, planted, tmp_path_factory):
    """An app with a key that may do everything."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("documented") / "shop")
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        yield create_app(shop), shop.keys.create("all", ["read", "write", "admin"]).token


@pytest.fixture(scope="module")
def documented(keyed):
    app, token = keyed
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"X-API-Key": token})
    schema.config.phases.update(phases=["examples", "fuzzing"])
    # Reading a clip loads a speech model; bytes that are no picture and no sound have tests of their own.
    return schema.exclude(path="/v1/search", method="POST")


def cases(schema, examples: int):
    """Calls of every operation that the document has, with the settings they are drawn by."""
    drawn = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    for operation in schema.get_all_operations():
        yield operation.ok(), drawn


def test_answers_are_as_documented(documented, keyed):
    asked = 0
    for operation, drawn in cases(documented, 12):

        @drawn
        @given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(headers={"X-API-Key": keyed[1]}, checks=CHECKS)

        check()
        asked += 1
    assert asked >= 40


def test_refusals_are_as_documented(documented):
    for operation, drawn in cases(documented, 2):

        @drawn
        @given(case=operation.as_strategy())
        def check(case):
            answer = case.call_and_validate(headers={"X-API-Key": "endcap_000000000000_wrong"}, checks=CHECKS)
            assert "/health/" in case.path or answer.status_code == 401

        check()
