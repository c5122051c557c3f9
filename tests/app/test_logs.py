"""Lines of the log in either form, and whose request they belong to."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest
from pydantic import ValidationError

from endcap.app.logs import CURRENT_REQUEST, LogConfig, configured

LOG = logging.getLogger("endcap.somewhere")


@pytest.fixture
def written():
    """Runs something with the log configured; gives the lines."""

    def run(work, **config) -> list[str]:
        stream = io.StringIO()
        with configured(LogConfig(**config), stream):
            work()
        return stream.getvalue().splitlines()

    return run


def fail():
    token = CURRENT_REQUEST.set("abc-1")
    try:
        raise KeyError("thing")
    except KeyError:
        LOG.exception("It failed")
    finally:
        CURRENT_REQUEST.reset(token)


def test_text_is_a_line_with_time_level_and_logger(written):
    (line,) = written(lambda: LOG.warning("%d is odd", 3))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING endcap\.somewhere: 3 is odd", line)


def test_faults_carry_the_request_and_a_traceback(written):
    first, *rest = written(fail)
    assert first.endswith("It failed [request abc-1]")
    assert rest[-1] == "KeyError: 'thing'"
    (line,) = written(fail, format="json")
    said = json.loads(line)
    assert (said["level"], said["request_id"], said["message"]) == ("error", "abc-1", "It failed")
    assert said["exception"].endswith("KeyError: 'thing'")


def test_fields_of_a_request_are_fields_of_the_object(written):
    fields = {"method": "GET", "route": "/v1/users/{user_id}", "status": 200, "duration_ms": 1.5, "request_id": "r9"}
    (line,) = written(lambda: LOG.info("said", extra={"request": fields}), format="json")
    assert fields.items() <= json.loads(line).items()


def test_no_message_passes_for_a_line_of_its_own(written):
    assert len(written(lambda: LOG.info("one\n2026-01-01 two\r\nthree"))) == 1
    (line,) = written(lambda: LOG.info("one\ntwo"), format="json")
    assert json.loads(line)["message"] == "one\ntwo"


@pytest.mark.parametrize("form", ["text", "json"])
def test_half_a_character_and_odd_values_are_written(written, form):
    lines = written(lambda: LOG.info("half \ud800", extra={"request": {"odd": {1, 2}, "none": None}}), format=form)
    assert len(lines) == 1
    assert "half" in lines[0]


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_level_is_the_least_that_is_written(written, level, lines):
    def say():
        LOG.debug("a")
        LOG.info("b")
        LOG.warning("c")
        logging.getLogger("a_library").debug("its insides")

    assert len(written(say, level=level)) == lines


def test_what_was_before_comes_back(written):
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.getLogger("endcap").level
    written(fail, level="error")
    assert (root.level, list(root.handlers), logging.getLogger("endcap").level) == before


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        LogConfig(format="xml")
