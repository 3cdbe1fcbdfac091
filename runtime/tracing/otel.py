"""Spans by OpenTelemetry: a request's with its queue, batch and engine parts, and a step's with links to requests.

Names and attributes of rpc spans are those of OpenTelemetry's semantic conventions for gRPC; `traceparent` and
`tracestate` in the metadata are W3C Trace Context. A step is traced when a request whose samples it learns from was.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceState, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from acclimate.adapters.outcome import Outcome
from acclimate.runtime.config_tracing import Tracing
from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.scheduler.around import MARK
from acclimate.runtime.scheduler.report import StepReport
from acclimate.runtime.scheduler.tickets import Answer, Ticket
from acclimate.runtime.service_protocol import ServiceProtocol
from acclimate.runtime.sessions.gathering import Gathered
from acclimate.runtime.sessions.session import Session, SessionKey
from acclimate.runtime.types import InferReply, InferRequest

# Traced requests whose samples may still be learnt from; of older ones, steps say nothing.
REMEMBERED = 16_384
# A step over more requests than that links to the first of them.
MAX_LINKS = 128
EXPORT_SECONDS = 5.0
CLOSE_MS = 3000
PROPAGATOR = TraceContextTextMapPropagator()


def tracer_of(config: Tracing, version: str, exporter: SpanExporter | None = None) -> OtelTracer:
    """A tracer that sends to `config.endpoint`, or to an exporter of one's own."""
    resource = Resource.create({"service.name": config.service_name, "service.version": version})
    provider = TracerProvider(sampler=_sampler(config), resource=resource, shutdown_on_exit=False)
    sending = exporter or OTLPSpanExporter(config.endpoint, config.endpoint.startswith("http:"), timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(sending))
    return OtelTracer(provider)


class Linked(Sampler):
    """What is linked to something traced is traced; `other` decides about the rest."""

    def __init__(self, other: Sampler) -> None:
        self._other = other

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See `Sampler`."""
        linked = any(link.context.trace_flags.sampled for link in links or ())
        chosen = ALWAYS_ON if linked else self._other
        return chosen.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """See `Sampler`."""
        return f"Linked{{{self._other.get_description()}}}"


def _sampler(config: Tracing) -> Sampler:
    ratio = TraceIdRatioBased(config.sample_ratio)
    if config.follow_caller:
        return Linked(ParentBased(ratio))
    # What happens within a request is decided with it; only the caller's own decision is not asked for.
    return Linked(ParentBased(ratio, remote_parent_sampled=ratio, remote_parent_not_sampled=ratio))


@dataclass(frozen=True, slots=True)
class _Rpc:
    span: Span

    def end(self, code: int, *, failed: bool) -> None:
        self.span.set_attribute("rpc.grpc.status_code", code)
        if failed:
            self.span.set_status(StatusCode.ERROR)
        self.span.end()


class OtelTracer:
    """See `tracing.base.Tracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("acclimate")
        self._requests: OrderedDict[tuple[SessionKey, str], SpanContext] = OrderedDict()

    def rpc(self, method: str, metadata: Sequence[tuple[str, Any]]) -> _Rpc:
        """See `Tracer`."""
        headers = {key: value for key, value in metadata if isinstance(value, str)}
        service, _, name = method.removeprefix("/").partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        parent = PROPAGATOR.extract(headers, Context())
        span = self._tracer.start_span(f"{service}/{name}", parent, SpanKind.SERVER, attributes)
        # For good: the task ends with the rpc, and a stream is left in whichever context closes it.
        attach(set_span_in_context(span))
        return _Rpc(span)

    def around(self, service: ServiceProtocol) -> ServiceProtocol:
        """See `Tracer`."""
        return cast(ServiceProtocol, _Traced(service, self._tracer))

    def answered(self, ticket: Ticket, answer: Answer) -> None:
        """See `Tracer`."""
        span = ticket.mark
        if not isinstance(span, Span) or not span.is_recording():
            return
        span.set_attribute("acclimate.request.id", ticket.request_id)
        span.set_attribute("acclimate.rows", len(ticket.inputs))
        span.set_attribute("acclimate.version", answer.version)
        if ticket.session is not None:
            span.set_attribute("acclimate.session", ticket.session.id)
            self._remember(ticket.session, ticket.request_id, span.get_span_context())
        self._parts(span, answer)

    def _parts(self, span: Span, answer: Answer) -> None:
        """Children of a request's span, one after the other, of which the last is over by now."""
        parent, at = set_span_in_context(span), time.time_ns() - _ns(answer.scored)
        begins = {"engine": at - _ns(answer.computed)}
        begins["batch"] = begins["engine"] - _ns(answer.gathered)
        begins["queue"] = begins["batch"] - _ns(answer.queued)
        rows = {"acclimate.batch.rows": answer.batch_rows}
        for name, end in (("queue", begins["batch"]), ("batch", begins["engine"]), ("engine", at)):
            attributes = None if name == "queue" else rows
            self._tracer.start_span(name, parent, attributes=attributes, start_time=begins[name]).end(end)

    def _remember(self, session: Session, request_id: str, context: SpanContext) -> None:
        self._requests[session.key, request_id] = context
        if len(self._requests) > REMEMBERED:
            self._requests.popitem(last=False)

    @contextmanager
    def step(self, sessions: Sequence[Session], gathered: Sequence[Gathered]) -> Iterator[None]:
        """See `Tracer`."""
        fed = dict.fromkeys(
            (session.key, name)
            for session, own in zip(sessions, gathered, strict=True)
            for name in dict.fromkeys(request_id for request_id, _ in own.keys)
        )
        links = [Link(self._requests[key]) for key in fed if key in self._requests][:MAX_LINKS]
        if not links and not trace.get_current_span().is_recording():
            yield
            return
        cohort = sessions[0].cohort
        attributes: dict[str, str | int] = {
            "acclimate.model": cohort.key[0],
            "acclimate.recipe": cohort.recipe.name,
            "acclimate.sessions": len(sessions),
            "acclimate.rows": sum(len(own.inputs) for own in gathered),
        }
        with self._tracer.start_as_current_span("adapt", attributes=attributes, links=links):
            yield

    def stepped(self, report: StepReport) -> None:
        """See `Tracer`."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        span.add_event(
            report.outcome.kind,
            {
                "acclimate.session": report.session.id,
                "acclimate.reason": report.outcome.reason,
                "acclimate.version": report.session.version,
                "acclimate.rows": report.samples,
                "acclimate.rows.selected": report.selected,
                "acclimate.cost.ms": report.ms,
                "acclimate.restored": report.restored,
                "acclimate.drift": report.drift,
            },
        )
        if report.outcome is Outcome.SKIPPED_ENGINE_ERROR:
            span.set_status(StatusCode.ERROR)

    def log_fields(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """See `Tracer`."""
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
            event["span_id"] = f"{context.span_id:016x}"
        return event

    def close(self) -> None:
        """See `Tracer`."""
        self._provider.force_flush(CLOSE_MS)
        self._provider.shutdown()


class _Traced:
    """A service whose inferences have spans; everything else is the service's own."""

    def __init__(self, service: ServiceProtocol, tracer: trace.Tracer) -> None:
        self._service = service
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def infer(self, request: InferRequest) -> InferReply:
        """See `ServiceProtocol.infer`."""
        attributes = {"acclimate.model": request.model}
        # A refusal is the caller's doing; it is told by its reason, and the span is no error.
        with self._tracer.start_as_current_span(
            "infer", attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            mark = MARK.set(span)
            try:
                return await self._service.infer(request)
            except AcclimateError as error:
                span.set_attribute("error.type", error.reason)
                raise
            except Exception as error:
                span.record_exception(error)
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                MARK.reset(mark)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
