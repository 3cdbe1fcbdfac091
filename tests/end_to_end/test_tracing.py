"""A real daemon sends its spans to a real collector of OTLP over gRPC; and what happens where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from acclimate.runtime.client import Client
from tests.end_to_end.daemons import arguments, refused, running
from tests.polling import until
from tests.runtime.digits import picture

ENGINE_MISSING, BAD_CONFIG = 3, 2
OFFLINE = "http://127.0.0.1:9"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Takes spans and keeps them."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.received: list[Any] = []

    def Export(  # noqa: N802 - the name of the rpc
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.received.extend(request.resource_spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, name: str) -> list[Any]:
        scopes = [scope for resource in self.received for scope in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    server, servicer = grpc.server(futures.ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    servicer.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(None).wait()


@contextmanager
def tracing(bundle: Path, endpoint: str, **more: str) -> Iterator[Any]:
    settings = {"ACCLIMATE_TRACING__ENDPOINT": endpoint, "ACCLIMATE_TRACING__SAMPLE_RATIO": "1"} | more
    with running(bundle, environment=settings) as daemon, Client(daemon.target) as client:
        yield daemon, client


def test_spans_reach_the_collector_and_the_last_of_them_when_the_daemon_ends(
    collector: Collector, bundle_path: Path
) -> None:
    with tracing(bundle_path, collector.endpoint, ACCLIMATE_TRACING__SERVICE_NAME="cameras") as (daemon, client):
        with client.create_session("digits", recipe="memo") as session:
            session.predict(picture(1, 2), request_id="a")
        assert daemon.stop() == 0
    attributes = {item.key: item.value.string_value for item in collector.received[0].resource.attributes}
    assert attributes["service.name"] == "cameras"
    (rpc,) = collector.spans("inference.GRPCInferenceService/ModelInfer")
    (infer,) = collector.spans("infer")
    assert infer.parent_span_id == rpc.span_id
    assert collector.spans("acclimate.v1.SessionService/DeleteSession"), "what ended last was sent, too"
    for name in ("queue", "batch", "engine"):
        assert [part.parent_span_id for part in collector.spans(name)] == [infer.span_id]
    # memo answers with a step over the request's own samples, so the step is a part of the request.
    assert {step.parent_span_id for step in collector.spans("adapt")} == {infer.span_id}


def test_steps_link_to_their_requests_on_the_wire(collector: Collector, bundle_path: Path) -> None:
    with tracing(bundle_path, collector.endpoint) as (daemon, client):
        with client.create_session("digits", recipe="tent") as session:
            for seed in range(2):
                session.predict(picture(seed, 16))
            until(lambda: session.get().updates > 0, "a step")
        assert daemon.stop() == 0
    (step,) = collector.spans("adapt")
    assert {link.span_id for link in step.links} == {span.span_id for span in collector.spans("infer")}
    assert [event.name for event in step.events] == ["applied"]


def test_a_collector_that_is_not_there_costs_nobody_an_answer_nor_the_daemon_its_end(bundle_path: Path) -> None:
    with tracing(bundle_path, OFFLINE) as (daemon, client):
        assert client.predict("digits", picture(1)).logits.shape == (1, 10)
        assert daemon.stop() == 0


@pytest.mark.parametrize("endpoint", ["collector:4317", "ftp://collector", "http://"])
def test_an_endpoint_that_is_none_is_named(bundle_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_TRACING__ENDPOINT", endpoint)
    ended = refused(*arguments(bundle_path))
    assert ended.returncode == BAD_CONFIG
    assert "tracing.endpoint" in ended.stderr
    assert endpoint in ended.stderr


def test_without_its_packages_the_extra_is_named(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("ACCLIMATE_TRACING__ENDPOINT", OFFLINE)
    ended = refused(*arguments(bundle_path))
    assert ended.returncode == ENGINE_MISSING
    assert "acclimate[trace]" in ended.stderr
