"""Pulls the catalogue's figures from a snapshot of the service at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from acclimate.runtime.metrics.catalogue import MODEL, PROCESS
from acclimate.runtime.metrics.catalogue.rows import PREFIX, ModelMetric, ProcessMetric, Row, Sample, Scrape
from acclimate.runtime.metrics.process import cpu_seconds, rss_bytes, version
from acclimate.runtime.security.stats import SecurityStats
from acclimate.runtime.types import Histogram, ModelSnapshot, ServiceSnapshot

RpcCounts = Mapping[tuple[str, str], int]
StreamCounts = tuple[int, Mapping[str, int]]


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
        scrape = self._scrape()
        for row in PROCESS:
            yield _process_family(row, scrape)
        for metric in MODEL:
            yield _model_family(metric, scrape.service.models)

    def _scrape(self) -> Scrape:
        streams, streamed = self._streams()
        return Scrape(
            service=self._snapshot(),
            version=self._version,
            memory_bytes=rss_bytes(),
            cpu_seconds=cpu_seconds(),
            rpcs=self._rpcs(),
            streams=streams,
            streamed=streamed,
            auth_failures=self._refusals.auth_failures(),
            quota_refusals=self._refusals.quota_refusals(),
        )


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


def _process_family(row: ProcessMetric, scrape: Scrape) -> Metric:
    value = row.read(scrape)
    samples: list[Sample]
    if isinstance(value, Mapping):
        samples = [((key,), float(number)) for key, number in (dict.fromkeys(row.values, 0.0) | dict(value)).items()]
    elif isinstance(value, Sequence):
        samples = [(labels, float(number)) for labels, number in value]
    else:
        samples = [] if value is None else [((), float(value))]
    return _family(row, samples)


def _model_family(metric: ModelMetric, models: tuple[ModelSnapshot, ...]) -> Metric:
    if metric.kind == "histogram":
        family = HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
        for model in models:
            histogram = metric.read(model)
            if not isinstance(histogram, Histogram):
                raise TypeError(f"metric {metric.name!r} is a histogram but reads {histogram!r}")
            family.add_metric((model.model,), *_buckets(histogram))
        return family
    return _family(metric, [sample for model in models for sample in _model_samples(metric, model)])


def _model_samples(metric: ModelMetric, model: ModelSnapshot) -> Iterator[Sample]:
    value = metric.read(model)
    if isinstance(value, Histogram):
        raise TypeError(f"metric {metric.name!r} is a {metric.kind} but reads a histogram")
    if isinstance(value, Mapping):
        for key, number in (dict.fromkeys(metric.values, 0.0) | dict(value)).items():
            yield (model.model, key), float(number)
    elif value is not None:
        yield (model.model,), float(value)


def _family(row: Row, samples: list[Sample]) -> Metric:
    kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = kind(PREFIX + row.name, row.help, labels=row.labels)
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
