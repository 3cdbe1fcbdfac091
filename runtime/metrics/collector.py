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

from acclimate.runtime.metrics.catalogue import MODEL, PREFIX, PROCESS, PROCESS_VALUES, Kind, ModelMetric
from acclimate.runtime.metrics.process import cpu_seconds, rss_bytes, version
from acclimate.runtime.security.stats import SecurityStats
from acclimate.runtime.store.base import StoreSnapshot
from acclimate.runtime.types import Histogram, ModelSnapshot, ServiceSnapshot

RpcCounts = Mapping[tuple[str, str], int]
StreamCounts = tuple[int, Mapping[str, int]]
Sample = tuple[tuple[str, ...], float]


class ServiceCollector(Collector):
    """Turns snapshots into metric families; holds no state of its own, so any thread may scrape."""

    def __init__(
        self,
        snapshot: Callable[[], ServiceSnapshot],
        rpcs: Callable[[], RpcCounts],
        refusals: SecurityStats,
        streams: Callable[[], StreamCounts],
    ) -> None:
        self._snapshot = snapshot
        self._rpcs = rpcs
        self._refusals = refusals
        self._streams = streams
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
        open_streams, streamed = self._streams()
        single = {
            "ready": float(snapshot.ready),
            "draining": float(snapshot.draining),
            "start_time_seconds": snapshot.started_at,
            "queue_depth": float(snapshot.queue_depth),
            "requests_under_way": float(snapshot.admission.under_way),
            "expected_wait_seconds": snapshot.admission.expected_wait,
            "overloaded": float(snapshot.admission.overloaded),
            "watchers": float(snapshot.watchers),
            "models": float(len(snapshot.models)),
            "inference_streams": float(open_streams),
            "resident_memory_bytes": float(rss_bytes()),
            "cpu_seconds_total": cpu_seconds(),
            **_store(snapshot.store),
        }
        values: dict[str, list[Sample]] = {name: [((), value)] for name, value in single.items()}
        values["build_info"] = [((self._version,), 1.0)]
        values["model_info"] = [((model.model, model.version), 1.0) for model in snapshot.models]
        values["requests_refused_total"] = _counted("requests_refused_total", snapshot.admission.refused)
        values["model_loads_total"] = _counted("model_loads_total", snapshot.loads)
        values["model_unloads_total"] = _counted("model_unloads_total", snapshot.unloads)
        values["inference_stream_requests_total"] = _counted("inference_stream_requests_total", streamed)
        values["rpcs_total"] = [(labels, float(count)) for labels, count in sorted(self._rpcs().items())]
        for name, counts in (
            ("auth_failures_total", self._refusals.auth_failures()),
            ("quota_refusals_total", self._refusals.quota_refusals()),
        ):
            values[name] = [((reason,), float(count)) for reason, count in counts.items()]
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


def registry(
    snapshot: Callable[[], ServiceSnapshot],
    rpcs: Callable[[], RpcCounts] = dict,
    refusals: SecurityStats | None = None,
    streams: Callable[[], StreamCounts] = lambda: (0, {}),
) -> CollectorRegistry:
    """A registry of its own with nothing but the catalogue in it.

    Args:
        snapshot: the service's `snapshot`.
        rpcs: the gRPC server's `stats.counts`.
        refusals: whom the guard turned away.
        streams: the gRPC server's `stats.streams`.
    """
    own = CollectorRegistry(auto_describe=False)
    own.register(ServiceCollector(snapshot, rpcs, refusals or SecurityStats(), streams))
    return own


def _counted(name: str, counts: Mapping[str, int]) -> list[Sample]:
    _, known = PROCESS_VALUES[name]
    return [((value,), float(count)) for value, count in (dict.fromkeys(known, 0) | dict(counts)).items()]


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
