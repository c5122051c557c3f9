"""Every metric of answers, events and the standing of shops, made once for a registry. All are labelled by `shop`.

Children are looked up in a plain dict once they exist, so that counting costs a lock and an addition. Labels that may
come from outside are bounded: what nobody knows, or comes after very many, is counted as `other`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

OTHER = "other"
MOST_LABELS = 1000
STAGE_S = (0.0001, 0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.05, 0.1, 0.5)
COMMIT_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.05, 0.1, 0.25, 1, 5)
COMMIT_JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
WHERE = ("shop", "placement", "release")

Metric = TypeVar("Metric", bound=MetricWrapperBase)
OverWorkers = Literal["livesum", "livemax", "livemin"]


class Bound(Generic[Metric]):
    """The children of a metric by their label values, at most so many: what comes later is one child, whose labels are
    all `other`."""

    def __init__(self, metric: Metric, most: int = MOST_LABELS) -> None:
        self._metric, self._most = metric, most
        self._children: dict[Hashable, Metric] = {}

    def of(self, *values: str) -> Metric:
        child = self._children.get(values)
        if child is None:
            known = values if len(self._children) < self._most else (OTHER,) * len(values)
            child = self._metric.labels(*known)
            self._children[known] = child
        return child


class Instruments:
    """Names are `endcap_` and that of the attribute; counters end with `_total` when they are read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # a second series for each counter and histogram, which nobody asks for
        disable_created_metrics()  # type: ignore[no-untyped-call]

        def counter(name: str, meaning: str, *labels: str) -> Bound[Counter]:
            return Bound(Counter(f"endcap_{name}", meaning, labels, registry=registry))

        def histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Bound[Histogram]:
            return Bound(Histogram(f"endcap_{name}", meaning, labels, buckets=buckets, registry=registry))

        def gauge(name: str, meaning: str, over: OverWorkers, *labels: str) -> Bound[Gauge]:
            return Bound(Gauge(f"endcap_{name}", meaning, ("shop", *labels), registry=registry, multiprocess_mode=over))

        self.answers = counter("answers", "Slates that were handed out.", *WHERE)
        self.empty_answers = counter("empty_answers", "Slates without an item.", "shop", "placement")
        self.degraded_answers = counter("degraded_answers", "Stages that gave way to a fallback.", "shop", "stage")
        self.stage_seconds = histogram("stage_seconds", "Time of an answer by stage.", STAGE_S, "shop", "stage")
        self.events = counter("events", "Events by type and what became of them.", "shop", "type", "outcome")
        self.attributed_items = counter(
            "attributed_items", "Items of slates that had an act of the kind, each once.", *WHERE, "kind"
        )
        self.attributed_slates = counter(
            "attributed_slates", "Slates of which an item had an act of the kind, each once.", *WHERE, "kind"
        )
        self.attributed_revenue = counter(
            "attributed_revenue", "Price times quantity of what was bought from slates.", *WHERE, "currency"
        )
        self.commit_seconds = histogram("commit_seconds", "Time of a commit to the log.", COMMIT_S, "shop")
        self.commit_requests = histogram("commit_requests", "Writes that shared a commit.", COMMIT_JOBS, "shop")
        self.commit_failures = counter("commit_failures", "Commits that failed.", "shop")
        self.writer_queue_depth = gauge("writer_queue_depth", "Writes that wait for a commit.", "livesum")
        self.ready = gauge("ready", "1 where a release is loaded and events can be recorded.", "livemin")
        self.release_loaded = gauge("release_loaded", "Processes that answer with the release.", "livesum", "release")
        self.release_created_timestamp_seconds = gauge(
            "release_created_timestamp_seconds", "When the release that answers was made.", "livemin"
        )
        self.release_items = gauge("release_items", "Items of the release that answers.", "livemax")
        self.release_users = gauge("release_users", "Shoppers of the release that answers.", "livemax")
        self.log_last_seq = gauge("log_last_seq", "Number of the newest event in the log.", "livemax")
        self.log_lag_events = gauge("log_lag_events", "Events of the log that no answer has read yet.", "livemax")
