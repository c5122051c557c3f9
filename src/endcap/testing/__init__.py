"""For authors of plug-ins: a conformance suite and a fake for each plug point.

Subclass a suite in a test file of your own, under a name that pytest collects, and say how to make your object:

    from endcap.testing import FilterConformance

    class TestMyFilter(FilterConformance):
        def make(self):
            return MyFilter()

Suites are plain pytest classes: each `test_` method checks one promise of `endcap.core.protocols`. Override a method
or a class attribute to give the suite data that suits the object.
"""

from endcap.testing.conformance_content import EncoderConformance, EventSourceConformance, VectorIndexConformance
from endcap.testing.conformance_serving import (
    BulkSourceConformance,
    CandidateSourceConformance,
    FilterConformance,
    JudgeConformance,
    ScorerConformance,
    SelectorConformance,
)
from endcap.testing.conformance_store import StoreConformance
from endcap.testing.contexts import a_context, a_stranger
from endcap.testing.fakes import (
    FakeEncoder,
    FakeEventSource,
    FakeFilter,
    FakeIndex,
    FakeJudge,
    FakeScorer,
    FakeSelector,
    FakeSource,
)

__all__ = [
    "BulkSourceConformance",
    "CandidateSourceConformance",
    "EncoderConformance",
    "EventSourceConformance",
    "FakeEncoder",
    "FakeEventSource",
    "FakeFilter",
    "FakeIndex",
    "FakeJudge",
    "FakeScorer",
    "FakeSelector",
    "FakeSource",
    "FilterConformance",
    "JudgeConformance",
    "ScorerConformance",
    "SelectorConformance",
    "StoreConformance",
    "VectorIndexConformance",
    "a_context",
    "a_stranger",
]
