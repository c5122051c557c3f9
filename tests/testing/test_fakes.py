"""Every fake passes its plug point's suite."""

from endcap.testing import (
    BulkSourceConformance,
    EncoderConformance,
    EventSourceConformance,
    FakeEncoder,
    FakeEventSource,
    FakeFilter,
    FakeIndex,
    FakeJudge,
    FakeScorer,
    FakeSelector,
    FakeSource,
    FilterConformance,
    JudgeConformance,
    ScorerConformance,
    SelectorConformance,
    VectorIndexConformance,
)


class TestFakeEncoder(EncoderConformance):
    def make(self):
        return FakeEncoder()


class TestFakeSource(BulkSourceConformance):
    n_items = 8

    def make(self):
        return FakeSource([0.1, 3, 0, 2, 2, -1, 0.5, 0])

    def load(self, folder):
        return FakeSource.load(folder)


class TestFakeFilter(FilterConformance):
    def make(self):
        return FakeFilter({1, 4})


class TestFakeScorer(ScorerConformance):
    def make(self):
        return FakeScorer()


class TestFakeJudge(JudgeConformance):
    def make(self):
        return FakeJudge()


class TestFakeSelector(SelectorConformance):
    def make(self):
        return FakeSelector()


class TestFakeIndex(VectorIndexConformance):
    def make(self, vectors):
        return FakeIndex(vectors)


class TestFakeEventSource(EventSourceConformance):
    expected_rows = 2

    def make(self):
        return FakeEventSource(
            [
                {"event_type": "view", "user_id": "ann", "ts_ms": 1, "item_id": "a"},
                {"event_type": "purchase", "user_id": "ann", "ts_ms": 2, "item_id": "a", "price": 2.5},
            ]
        )


def test_source_remembers_who_asked():
    from endcap.testing import a_stranger

    source = FakeSource([1.0])
    stranger = a_stranger()
    source.weigh(stranger)
    assert source.asked == [stranger]


def test_event_source_may_be_empty():
    assert FakeEventSource([]).scan().collect().height == 0
