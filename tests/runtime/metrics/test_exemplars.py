"""A slow bucket leads to a request: exemplars in the OpenMetrics form, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from acclimate.runtime.client import Client
from acclimate.runtime.exemplars import LONGEST_ID, request_labels
from acclimate.runtime.histograms import Buckets
from acclimate.runtime.histograms import Exemplar as Shown
from acclimate.runtime.metrics.collector import registry
from tests.runtime.rpc.loopback import MODEL, Loopback, samples, serving


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    with serving() as running:
        yield running


def exemplars(loopback: Loopback) -> list[Exemplar]:
    text = generate_openmetrics(registry(loopback.service.snapshot)).decode()
    family = next(f for f in text_string_to_metric_families(text) if f.name == "acclimate_request_duration_seconds")
    return [sample.exemplar for sample in family.samples if sample.exemplar is not None]


def test_a_request_is_an_exemplar_of_its_bucket(loopback: Loopback) -> None:
    with Client(loopback.target) as client:
        answer = client.predict(MODEL, samples())
    (shown,) = exemplars(loopback)
    assert shown.labels == {"request_id": answer.request_id}
    assert 0 < shown.value < 60
    assert shown.timestamp is not None and float(shown.timestamp) > 1.7e9
    assert answer.request_id.encode() not in generate_latest(registry(loopback.service.snapshot))


def test_each_bucket_shows_its_latest_value() -> None:
    buckets = Buckets((1.0, 2.0))
    assert buckets.frozen().exemplars == ()
    for name, value in (("a", 0.5), ("b", 1.0), ("c", 3.0)):
        buckets.add(value)
        buckets.show(Shown({"request_id": name}, value, 0.0))
    shown = buckets.frozen().exemplars
    assert [one and one.labels["request_id"] for one in shown] == ["b", None, "c"]


def test_the_current_trace_is_named_and_long_ids_are_not() -> None:
    assert request_labels("") == {}
    assert request_labels("x" * (LONGEST_ID + 1)) == {}
    with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
        labels = request_labels("x" * LONGEST_ID)
    assert labels == {"request_id": "x" * LONGEST_ID, "trace_id": f"{span.get_span_context().trace_id:032x}"}
    # OpenMetrics 1.0: a label set of at most 128 characters.
    assert sum(len(name) + len(value) for name, value in labels.items()) <= 128
