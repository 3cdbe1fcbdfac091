"""Spans of real rpcs over loopback, collected by the SDK's exporter in memory."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime import logs
from acclimate.runtime.client import Client, ClientError
from acclimate.runtime.client.health import status
from acclimate.runtime.config import Config, Logging
from acclimate.runtime.config_tracing import Tracing
from acclimate.runtime.tracing.otel import OtelTracer, tracer_of
from acclimate.runtime.types import SessionView
from tests.polling import until
from tests.runtime.rpc.loopback import MODEL, Loopback, config, samples, serving
from tests.runtime.rpc.test_stream import STREAM, message

INFER = "/inference.GRPCInferenceService/ModelInfer"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"


class Traced:
    """A server, and the spans it has ended."""

    def __init__(self, up: Loopback, tracer: OtelTracer, exporter: InMemorySpanExporter) -> None:
        self.up, self.tracer, self._exporter = up, tracer, exporter

    @property
    def spans(self) -> tuple[Any, ...]:
        self.tracer._provider.force_flush()
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def wait(self, name: str, count: int = 1) -> list[Any]:
        until(lambda: len(self.named(name)) >= count, f"{count} spans named {name}")
        return self.named(name)

    def infer(self, number: int = 1, traceparent: str | None = None, **parameters: Any) -> oip.ModelInferResponse:
        metadata = [] if traceparent is None else [("traceparent", traceparent)]
        with self.up.channel() as channel:
            rpc = channel.unary_unary(
                INFER,
                request_serializer=oip.ModelInferRequest.SerializeToString,
                response_deserializer=oip.ModelInferResponse.FromString,
            )
            reply: oip.ModelInferResponse = rpc(message(number, 4, **parameters), metadata=metadata, timeout=60)
        return reply


@contextmanager
def traced(settings: Config | None = None, **tracing: Any) -> Iterator[Traced]:
    exporter = InMemorySpanExporter()
    tracer = tracer_of(Tracing(**({"sample_ratio": 1.0} | tracing)), "1.2.3", exporter)
    with serving(settings, tracer=tracer) as up:
        yield Traced(up, tracer, exporter)
    tracer.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Traced]:
    with traced() as running:
        yield running


def parent(span: Any) -> int | None:
    return None if span.parent is None else span.parent.span_id


def decided(view: SessionView) -> int:
    """Steps that the session has had, whatever came of them."""
    return view.updates + view.rollbacks + sum(view.skipped.values())


def own(span: Any) -> int:
    return span.get_span_context().span_id


def test_a_request_has_a_span_in_its_caller_s_trace_and_parts_that_follow_each_other(server: Traced) -> None:
    server.infer(7, SAMPLED, sequence_id="camera", sequence_start=True)
    (rpc,) = [span for span in server.wait("inference.GRPCInferenceService/ModelInfer") if span.parent]
    assert (f"{rpc.context.trace_id:032x}", f"{parent(rpc):016x}") == (TRACE, CALLER)
    assert rpc.kind is SpanKind.SERVER
    assert {
        "rpc.system": "grpc",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
    }.items() <= rpc.attributes.items()
    assert {"service.name": "acclimate", "service.version": "1.2.3"}.items() <= rpc.resource.attributes.items()
    ours = {span.name: span for span in server.spans if span.context.trace_id == rpc.context.trace_id}
    assert set(ours) == {rpc.name, "infer", "queue", "batch", "engine"}
    infer = ours["infer"]
    assert parent(infer) == own(rpc)
    expected = {
        "acclimate.model": MODEL,
        "acclimate.request.id": "7",
        "acclimate.session": "camera",
        "acclimate.rows": 4,
    }
    assert (expected | {"acclimate.version": 0}).items() <= infer.attributes.items()
    parts = [ours[name] for name in ("queue", "batch", "engine")]
    assert {parent(part) for part in parts} == {own(infer)}
    assert parts[0].end_time == parts[1].start_time
    assert parts[1].end_time == parts[2].start_time
    assert all(part.start_time <= part.end_time for part in parts)
    assert parts[2].attributes == {"acclimate.batch.rows": 4}


def test_what_was_learnt_links_to_the_requests_that_fed_it(server: Traced) -> None:
    with Client(server.up.target) as client:
        client.create_session(MODEL, "learner", recipe="tent", recipe_parameters={"batch_rows": 8})
    for number in range(100, 104):
        server.infer(number, sequence_id="learner")
    steps = server.wait("adapt", 2)
    fed = {link.context.span_id for step in steps for link in step.links}
    ids = {own(span): span.attributes["acclimate.request.id"] for span in server.named("infer")}
    assert sorted(ids[span] for span in fed) == ["100", "101", "102", "103"]
    assert [len(step.links) for step in steps] == [2, 2]
    for step in steps:
        assert step.parent is None, "a step belongs to several requests, and is the child of none"
        assert {
            "acclimate.model": MODEL,
            "acclimate.recipe": "tent",
            "acclimate.rows": 8,
        }.items() <= step.attributes.items()
        (event,) = step.events
        assert event.name in {"applied", "skipped", "rolled_back"}
        assert event.attributes["acclimate.session"] == "learner"
        assert event.attributes["acclimate.cost.ms"] > 0


def test_every_request_of_a_stream_has_a_span_of_its_own(server: Traced) -> None:
    with server.up.channel() as channel:
        rpc = channel.stream_stream(
            STREAM,
            request_serializer=oip.ModelInferRequest.SerializeToString,
            response_deserializer=oip.ModelStreamInferResponse.FromString,
        )
        sent = [message(number) for number in range(200, 203)]
        assert len(list(rpc(iter(sent), metadata=[("traceparent", SAMPLED)], timeout=60))) == 3
    (stream,) = server.wait("inference.GRPCInferenceService/ModelStreamInfer")
    ours = [span for span in server.named("infer") if parent(span) == own(stream)]
    assert sorted(span.attributes["acclimate.request.id"] for span in ours) == ["200", "201", "202"]


def test_a_refusal_is_told_by_its_reason_and_is_no_failure_of_the_daemon(server: Traced) -> None:
    with Client(server.up.target) as client, pytest.raises(ClientError):
        client.predict(MODEL, samples(1), parameters={"sequence_id": "nobody's"})
    (infer,) = [span for span in server.wait("infer") if "error.type" in span.attributes]
    assert infer.attributes["error.type"] == "SESSION_NOT_FOUND"
    assert infer.status.status_code is StatusCode.UNSET
    until(lambda: any(own(span) == parent(infer) for span in server.spans), "the rpc's span")
    (rpc,) = [span for span in server.spans if own(span) == parent(infer)]
    assert rpc.attributes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert rpc.status.status_code is StatusCode.UNSET


def test_whoever_asks_for_health_leaves_no_trace(server: Traced) -> None:
    with Client(server.up.target) as client:
        assert status(client) == "SERVING"
        client.server_info()
    server.wait("acclimate.v1.ServerService/GetServerInfo")
    assert not [span for span in server.spans if "health" in span.name.lower()]


@pytest.mark.parametrize(
    ("tracing", "traceparent", "expected"),
    [
        ({"sample_ratio": 0.0}, None, False),
        ({"sample_ratio": 0.0}, SAMPLED, True),
        ({"sample_ratio": 1.0}, NOT_SAMPLED, False),
        ({"sample_ratio": 0.0, "follow_caller": False}, SAMPLED, False),
        ({"sample_ratio": 1.0, "follow_caller": False}, NOT_SAMPLED, True),
        ({"sample_ratio": 1.0}, "00-nonsense-01", True),
    ],
)
def test_who_decides_what_is_traced(tracing: dict[str, Any], traceparent: str | None, expected: bool) -> None:
    with traced(**tracing) as server:
        with Client(server.up.target) as client:
            client.create_session(MODEL, "s", recipe="tent", recipe_parameters={"batch_rows": 4})
            server.infer(1, traceparent, sequence_id="s")
            until(lambda: decided(client.get_session(MODEL, "s")), "the step")
            client.server_info()
        # Ended spans come in their order, and that of the rpc ends before another rpc of its client begins.
        rpcs = server.named("inference.GRPCInferenceService/ModelInfer")
        assert bool(rpcs) is expected
        assert bool(server.named("adapt")) is expected, "a step is traced where a request that fed it is"


def test_lines_of_the_log_name_the_trace_they_were_written_in(server: Traced) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure(Logging(level="debug", format="json"), stream, more=(server.tracer.log_fields,))
    try:
        server.infer(300, SAMPLED)
        server.up.run(outside())
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (line,) = [line for line in lines if line["event"] == "rpc"]
    assert line["trace_id"] == TRACE
    assert int(line["span_id"], 16) in {own(span) for span in server.wait("inference.GRPCInferenceService/ModelInfer")}
    (other,) = [line for line in lines if line["event"] == "outside"]
    assert "trace_id" not in other


async def outside() -> None:
    structlog.stdlib.get_logger("acclimate.test").info("outside")


def test_requests_that_steps_may_link_to_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acclimate.runtime.tracing.otel.REMEMBERED", 3)
    with traced(config()) as server:
        for number in range(5):
            server.infer(number, sequence_id="s", sequence_start=number == 0)
        server.wait("infer", 5)
        assert [request for _, request in server.tracer._requests] == ["2", "3", "4"]
