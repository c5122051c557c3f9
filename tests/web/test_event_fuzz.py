"""Whatever a body of events holds: no fault, no part of an event, and every good event of a batch is recorded."""

from __future__ import annotations

import json
import math
import string
from itertools import count

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from endcap.app.events import check_event
from endcap.core.errors import CallerError
from endcap.core.types import Event, EventType
from endcap.web.messages import EventIn
from endcap.web.wire import Parsed, parse_events

NOW_MS = 1_770_000_000_000
FIELDS = tuple(EventIn.__struct_fields__)
OF_NO_ITEM = {EventType.SEARCH, EventType.LOGIN}
IDS = count()
quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(quick, max_examples=40)

odd_text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "\x00", "\u202e", "\ufeff", "a\u0301" * 50, "\U0001f6d2" * 64, "x" * 257, "null", "../..", "%00"]
    ),
)
odd_numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -0.0, 1e308, 2**53, 2**63, -(2**63) - 1, 10**400, 5e-324, NOW_MS, NOW_MS + 10**9, 1.5]),
)
leaves = st.none() | st.booleans() | odd_numbers | odd_text
values = st.recursive(
    leaves, lambda inside: st.lists(inside, max_size=4) | st.dictionaries(odd_text, inside, max_size=4), max_leaves=12
)
good = st.fixed_dictionaries(
    {
        "event_type": st.sampled_from([kind.value for kind in EventType if kind not in OF_NO_ITEM]),
        "user_id": st.text(string.ascii_letters, min_size=1, max_size=10),
        "item_id": st.text(string.ascii_letters, min_size=1, max_size=10),
    },
    optional={
        "quantity": st.floats(0.01, 1e9),
        "price": st.floats(0, 1e9),
        "session_id": st.text(string.ascii_letters, min_size=1, max_size=10),
        "ts_ms": st.integers(NOW_MS - 10**9, NOW_MS),
    },
)


@st.composite
def nearly_good(draw):
    """A good event with some of its fields replaced by anything, left out, or joined by others."""
    event = dict(draw(good))
    for name in draw(st.lists(st.sampled_from([*FIELDS, "colour"]), min_size=1, max_size=3)):
        event[name] = draw(values)
    for name in draw(st.lists(st.sampled_from([*event]), max_size=1)):
        del event[name]
    return event


def parsed(body: bytes) -> Parsed | None:
    """None where the body as a whole is refused, in a sentence."""
    try:
        return parse_events(body, NOW_MS)
    except CallerError:
        return None


def assert_whole(found: Parsed) -> None:
    """Each event may be recorded as it is: of the declared types, checked, and such as can be written."""
    for event in found.events:
        assert msgspec.convert(msgspec.structs.asdict(event), Event) == event
        check_event(event, NOW_MS)
        assert all(math.isfinite(number) for number in (event.quantity, event.price, event.value) if number is not None)
        for name in Event.__struct_fields__:
            value = getattr(event, name)
            if isinstance(value, str):
                value.encode("utf-8")
            if isinstance(value, int):
                assert abs(value) < 2**63
    for entry in found.rejected:
        assert entry.reason


@quick
@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff\xfe{}")
@example(b"[" * 100_000)
@example(b'{"events":' * 5_000 + b"1" + b"}" * 5_000)
@example(b'{"a":' * 100_000)
@example(b'{"events": [' + b"[" * 50_000 + b"]" * 50_000 + b"]}")
@example(b'{"event_type": "view", "user_id": "\\ud800", "item_id": "a"}')
@example(b'{"ts_ms": ' + b"9" * 100_000 + b"}")
@example(b'{"event_type": "view", "user_id": "u", "item_id": "a", "price": 1e999}')
@example(b'{"event_type": "view", "user_id": "u", "item_id": "a", "price": NaN}')
def test_any_bytes(body):
    found = parsed(body)
    if found is not None:
        assert_whole(found)


@quick
@given(nearly_good() | values)
def test_nearly_good_events(event):
    body = json.dumps(event, allow_nan=True).encode("utf-8", "surrogatepass")
    found = parsed(body)
    if found is not None:
        assert_whole(found)


@quick
@given(good, st.data())
def test_cut_and_changed_json(event, data):
    body = bytearray(json.dumps({"events": [event, event]}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=3))
        if not body:
            return
    found = parsed(bytes(body))
    if found is not None:
        assert_whole(found)


@pytest.mark.parametrize("field", FIELDS)
@few
@given(value=values)
def test_any_value_in_any_field(field, value):
    event = {"event_type": "view", "user_id": "u", "item_id": "a", field: value}
    found = parsed(json.dumps(event).encode("utf-8", "surrogatepass"))
    if found is not None:
        assert_whole(found)
        assert len(found.events) + len(found.rejected) >= 1


def test_a_key_given_twice_is_one_event():
    body = b'{"event_type": "view", "user_id": "one", "user_id": "two", "item_id": "a"}'
    found = parsed(body)
    assert found is None or [event.user_id for event in found.events] == ["two"]


@quick
@given(st.lists(st.tuples(st.booleans(), good, nearly_good() | values), min_size=1, max_size=8))
def test_the_good_of_a_batch_are_taken_and_the_bad_named(rows):
    batch = [{**fine, "event_id": f"g-{place}"} if is_good else odd for place, (is_good, fine, odd) in enumerate(rows)]
    found = parsed(json.dumps({"events": batch}).encode("utf-8", "surrogatepass"))
    if found is None:  # numbers that JSON has no words for make the whole no JSON
        return
    assert_whole(found)
    taken = {event.event_id for event in found.events}
    assert {f"g-{place}" for place, (is_good, *_) in enumerate(rows) if is_good} <= taken
    assert not {entry.position for entry in found.rejected} & {place for place, row in enumerate(rows) if row[0]}


@settings(quick, max_examples=25)
@given(rows=st.lists(st.tuples(st.booleans(), good, nearly_good() | values), min_size=1, max_size=6))
def test_over_http_the_good_are_on_disk(client, shop, rows):
    stem = f"f{next(IDS)}"
    batch = [
        {**fine, "event_id": f"{stem}-{place}", "ts_ms": shop.clock()} if is_good else odd
        for place, (is_good, fine, odd) in enumerate(rows)
    ]
    before = shop.store.last_seq()
    body = json.dumps({"events": batch}).encode("utf-8", "surrogatepass")
    answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 422}, answer.text
    recorded = [event for _, event in shop.store.events_after(before)] if shop.store.last_seq() > before else []
    if answer.status_code == 422:
        assert not recorded
        return
    said = answer.json()
    assert {f"{stem}-{place}" for place, row in enumerate(rows) if row[0]} <= set(said["accepted"])
    assert sorted(event.event_id for event in recorded) == sorted(said["accepted"])
    assert shop.store.last_seq() == before + len(said["accepted"])


@settings(quick, max_examples=30)
@given(body=st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_over_http_nothing_is_a_fault(client, body):
    for path in ("/v1/events", "/v1/recommendations"):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code < 500, answer.text
        assert answer.headers["Content-Type"] == "application/json"
