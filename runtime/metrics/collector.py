"""Pulls the catalogue's figures from a snapshot of the service at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from acclimate.runtime.metrics.catalogue import MODEL, PREFIX, PROCESS, Kind, ModelMetric
from acclimate.runtime.metrics.process import cpu_seconds, rss_bytes, version
from acclimate.runtime.store.base import StoreSnapshot
from acclimate.runtime.types import Histogram, ModelSnapshot, ServiceSnapshot

RpcCounts = Mapping[tuple[str, str], int]
Sample = tuple[tuple[str, ...], float]


class ServiceCollector(Collector):
    """Turns snapshots into metric families; holds no state of its own, so any thread may scrape."""

    def __init__(self, snapshot: Callable[[], ServiceSnapshot], rpcs: Callable[[], RpcCounts]) -> None:
        self._snapshot = snapshot
        self._rpcs = rpcs
        self._version = version()

    def collect(self) -> Iterator[Metric]:
        """Every family of the catalogue, in its order."""
        snapshot = self._snapshot()
        values = self._process(snapshot)
        for metric in PROCESS:
            yield _family(metric.name, metric.kind, metric.help, metric.labels, values[metric.name])
        for row in MODEL:
            yield _model_family(row, snapshot.models)

    def _process(self, snapshot: ServiceSnapshot) -> dict[str, list[Sample]]:
        single = {
            "ready": float(snapshot.ready),
            "draining": float(snapshot.draining),
            "start_time_seconds": snapshot.started_at,
            "queue_depth": float(snapshot.queue_depth),
            "watchers": float(snapshot.watchers),
            "resident_memory_bytes": float(rss_bytes()),
            "cpu_seconds_total": cpu_seconds(),
            **_store(snapshot.store),
        }
        values: dict[str, list[Sample]] = {name: [((), value)] for name, value in single.items()}
        values["build_info"] = [((self._version,), 1.0)]
        values["rpcs_total"] = [(labels, float(count)) for labels, count in sorted(self._rpcs().items())]
        return values


def _store(store: StoreSnapshot) -> dict[str, float]:
    figures = {
        "sessions": store.sessions,
        "bytes": store.bytes,
        "failing": store.failing,
        "pending_commits": store.pending_commits,
        "oldest_pending_seconds": store.oldest_seconds,
        "transactions_total": store.transactions,
        "write_failures_total": store.failures,
        "writes_total": store.written,
        "written_bytes_total": store.written_bytes,
        "write_seconds_total": store.write_seconds,
        "evictions_total": store.evictions,
        "returns_total": store.returns,
        "fenced_total": store.fenced,
        "damaged_total": store.damaged,
    }
    return {f"store_{name}": float(value) for name, value in figures.items()}


def registry(snapshot: Callable[[], ServiceSnapshot], rpcs: Callable[[], RpcCounts] = dict) -> CollectorRegistry:
    """A registry of its own with nothing but the catalogue in it.

    Args:
        snapshot: the service's `snapshot`.
        rpcs: the gRPC server's `stats.counts`.
    """
    own = CollectorRegistry(auto_describe=False)
    own.register(ServiceCollector(snapshot, rpcs))
    return own


def _model_family(metric: ModelMetric, models: tuple[ModelSnapshot, ...]) -> Metric:
    if metric.kind == "histogram":
        family = HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=("model",))
        for model in models:
            histogram = metric.read(model)
            if not isinstance(histogram, Histogram):
                raise TypeError(f"metric {metric.name!r} is a histogram but reads {histogram!r}")
            family.add_metric((model.model,), *_buckets(histogram))
        return family
    labels = ("model", metric.label) if metric.label else ("model",)
    samples = [sample for model in models for sample in _model_samples(metric, model)]
    return _family(metric.name, metric.kind, metric.help, labels, samples)


def _model_samples(metric: ModelMetric, model: ModelSnapshot) -> Iterator[Sample]:
    value = metric.read(model)
    if isinstance(value, Histogram):
        raise TypeError(f"metric {metric.name!r} is a {metric.kind} but reads a histogram")
    if isinstance(value, Mapping):
        for key, number in (dict.fromkeys(metric.values, 0) | dict(value)).items():
            yield (model.model, key), float(number)
    else:
        yield (model.model,), float(value)


def _family(name: str, kind: Kind, text: str, labels: tuple[str, ...], samples: list[Sample]) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily
    if kind == "counter":
        family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    else:
        family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound, `+Inf` last, and the sum of all values."""
    bounds = [repr(float(bound)) for bound in histogram.bounds] + ["+Inf"]
    running, buckets = 0, []
    for bound, count in zip(bounds, histogram.counts, strict=True):
        running += count
        buckets.append((bound, float(running)))
    return buckets, histogram.total
