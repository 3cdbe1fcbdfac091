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
from prometheus_client.samples import Exemplar

from acclimate.runtime.figures import Histogram, ModelSnapshot, ServiceSnapshot
from acclimate.runtime.metrics.catalogue import MODEL, PROCESS, SESSION
from acclimate.runtime.metrics.catalogue.rows import (
    PREFIX,
    ProcessMetric,
    Row,
    RowOfModels,
    Sample,
    Scrape,
    SessionMetric,
    Snapshot,
    Value,
)
from acclimate.runtime.metrics.energy import Energy
from acclimate.runtime.metrics.process import cpu_seconds, rss_bytes, version
from acclimate.runtime.security.stats import SecurityStats

RpcCounts = Mapping[tuple[str, str], int]
StreamCounts = tuple[int, Mapping[str, int]]
Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class ServiceCollector(Collector):
    """Turns snapshots into metric families; any thread may scrape."""

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
        self._energy = Energy()

    def collect(self) -> Iterator[Metric]:
        """Every family of the catalogue, in its order."""
        scrape = self._scrape()
        for row in PROCESS:
            yield _process_family(row, scrape)
        for metric in MODEL:
            yield model_family(metric, scrape.service.models)
        for listed in SESSION:
            yield _session_family(listed, scrape.service.models)

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
            joules=self._energy.joules(),
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
    if isinstance(value, Histogram):
        return _histograms(row, [((), value)])
    if isinstance(value, Sequence):
        return _family(row, [(labels, float(number)) for labels, number in value])
    return _family(row, list(_samples(row, (), value)))


def model_family(row: RowOfModels[Snapshot], models: Sequence[Snapshot]) -> Metric:
    """The family of a row over what it reads."""
    read = [((model.model,), row.read(model)) for model in models]
    if row.kind == "histogram":
        return _histograms(row, [(labels, value) for labels, value in read if isinstance(value, Histogram)])
    return _family(row, [sample for labels, value in read for sample in _samples(row, labels, value)])


def _session_family(row: SessionMetric, models: tuple[ModelSnapshot, ...]) -> Metric:
    listed = [((model.model, one.tenant, one.session_id), row.read(one)) for model in models for one in model.listed]
    return _family(row, [sample for labels, value in listed for sample in _samples(row, labels, value)])


def _samples(row: Row, labels: tuple[str, ...], value: Value) -> Iterator[Sample]:
    if isinstance(value, Histogram):
        raise TypeError(f"metric {row.name!r} is a {row.kind} but reads a histogram")
    if isinstance(value, Mapping):
        for key, number in (dict.fromkeys(row.values, 0.0) | dict(value)).items():
            yield (*labels, key), float(number)
    elif value is not None:
        yield labels, float(value)


def _family(row: Row, samples: list[Sample]) -> Metric:
    kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = kind(PREFIX + row.name, row.help, labels=row.labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _histograms(row: Row, values: list[tuple[tuple[str, ...], Histogram]]) -> Metric:
    family = HistogramMetricFamily(PREFIX + row.name, row.help, labels=row.labels)
    for labels, histogram in values:
        family.add_metric(labels, _buckets(histogram), histogram.total)
    return family


def _buckets(histogram: Histogram) -> list[Bucket]:
    """Upper bounds, `+Inf` last, each with how many values are at most that, and one of those it alone counts."""
    bounds = [repr(float(bound)) for bound in histogram.bounds] + ["+Inf"]
    exemplars = histogram.exemplars or (None,) * len(bounds)
    running = 0
    buckets: list[Bucket] = []
    for bound, count, seen in zip(bounds, histogram.counts, exemplars, strict=True):
        running += count
        if seen is None:
            buckets.append((bound, float(running)))
        else:
            buckets.append((bound, float(running), Exemplar(dict(seen.labels), seen.value, seen.at)))
    return buckets
