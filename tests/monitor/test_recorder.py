"""What the counters say of answers, events and the standing of a process."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter

from endcap.core.slates import new_id, release_hash
from endcap.core.types import Event, EventType, Placement, Recommendation, Slate
from endcap.monitor.instruments import Bound, Instruments
from endcap.monitor.recorder import Recorder, Standing

ITEMS = (Recommendation(item_id="a", title="A", score=1.0, source="popular", reason=""),)
HERE = {"placement": "home", "release": "one"}


class Registry(CollectorRegistry):
    def get_sample_value(self, name, labels=None):
        """Of the one shop there is."""
        return super().get_sample_value(name, {"shop": "shop", **(labels or {})})


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def recorder(registry):
    return Recorder(Instruments(registry), "shop")


def slate(release="one", **rest) -> Slate:
    made = new_id(Placement.HOME, release_hash(release), ["a"])
    return Slate(made, release, Placement.HOME, **{"items": ITEMS, **rest})


def event(kind, rid=None, **rest) -> Event:
    return Event(event_type=kind, user_id="u", ts_ms=0, item_id="a", recommendation_id=rid, **rest)


def test_answers_are_counted_with_what_gave_way(recorder, registry):
    recorder.answered(slate())
    recorder.answered(slate(degraded=("ranker",), items=()))
    assert registry.get_sample_value("endcap_answers_total", HERE) == 2
    assert registry.get_sample_value("endcap_degraded_answers_total", {"stage": "ranker"}) == 1
    assert registry.get_sample_value("endcap_empty_answers_total", {"placement": "home"}) == 1


def test_stages_are_counted_with_what_came_after_the_answer(recorder, registry):
    shown = slate(stages={"score": 0.004})
    recorder.answered(shown)
    shown.stages["encode"] = 0.0001
    recorder.stand(Standing())
    count = registry.get_sample_value
    assert count("endcap_stage_seconds_bucket", {"stage": "score", "le": "0.003"}) == 0
    assert count("endcap_stage_seconds_bucket", {"stage": "score", "le": "0.005"}) == 1
    assert count("endcap_stage_seconds_count", {"stage": "encode"}) == 1
    recorder.stand(Standing())
    assert count("endcap_stage_seconds_count", {"stage": "score"}) == 1


def test_effects_carry_the_placement_and_release_of_the_slate(recorder, registry):
    shown = slate()
    recorder.answered(shown)
    rid = shown.recommendation_id
    recorder.recorded(
        [
            event(EventType.CLICK, rid),
            event(EventType.CLICK, rid),
            event(EventType.PURCHASE, rid, price=3.0, quantity=2.0, currency="EUR"),
        ],
        [],
    )
    for kind in ("click", "purchase"):
        assert registry.get_sample_value("endcap_attributed_slates_total", {**HERE, "kind": kind}) == 1
    assert registry.get_sample_value("endcap_attributed_revenue_total", {**HERE, "currency": "EUR"}) == 6


def test_duplicates_have_no_effect(recorder, registry):
    shown = slate()
    clicked = event(EventType.CLICK, shown.recommendation_id, event_id="e-1")
    recorder.recorded([clicked], ["e-1"])
    count = registry.get_sample_value
    assert count("endcap_events_total", {"type": "click", "outcome": "duplicate"}) == 1
    assert count("endcap_events_total", {"type": "click", "outcome": "accepted"}) is None
    assert not [
        sample for metric in registry.collect() for sample in metric.samples if "attributed_items_t" in sample.name
    ]


def test_a_release_that_nobody_knows_makes_no_series(recorder, registry):
    for number in range(5):
        rid = new_id(Placement.HOME, release_hash(f"made up {number}"))
        recorder.recorded([event(EventType.CLICK, rid)], [])
    where = {"placement": "home", "release": "other", "kind": "click"}
    assert registry.get_sample_value("endcap_attributed_slates_total", where) == 5


def test_a_release_of_before_the_start_is_known_by_its_folder(recorder, registry):
    recorder.stand(Standing(known=["one", "two"]))
    recorder.recorded([event(EventType.CLICK, slate("two").recommendation_id)], [])
    where = {"placement": "home", "release": "two", "kind": "click"}
    assert registry.get_sample_value("endcap_attributed_slates_total", where) == 1


def test_rejected_types_are_bounded(recorder, registry):
    recorder.refused(["click", "nonsense", "more nonsense"])
    count = registry.get_sample_value
    assert count("endcap_events_total", {"type": "click", "outcome": "rejected"}) == 1
    assert count("endcap_events_total", {"type": "other", "outcome": "rejected"}) == 2


def test_standing_is_taken_over(recorder, registry):
    recorder.stand(Standing(ready=True, release="one", items=3, last_seq=9, folded_seq=7, commits=[(0.004, 2)]))
    count = registry.get_sample_value
    assert count("endcap_log_lag_events") == 2
    assert count("endcap_release_loaded", {"release": "one"}) == 1
    assert count("endcap_commit_seconds_bucket", {"le": "0.003"}) == 0
    assert count("endcap_commit_seconds_bucket", {"le": "0.005"}) == 1
    assert count("endcap_commit_requests_sum") == 2
    recorder.stand(Standing(ready=True, release="two", failed_commits=1))
    assert count("endcap_release_loaded", {"release": "one"}) == 0
    assert count("endcap_release_loaded", {"release": "two"}) == 1
    assert count("endcap_commit_failures_total") == 1


def test_labels_are_bounded():
    registry = CollectorRegistry()
    bound = Bound(Counter("things", "Things.", ("name",), registry=registry), most=3)
    for number in range(10):
        bound.of(f"name {number}").inc()
    assert registry.get_sample_value("things_total", {"name": "other"}) == 7
    assert registry.get_sample_value("things_total", {"name": "name 2"}) == 1
