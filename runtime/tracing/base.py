"""What the daemon tells a tracer. Where tracing is off there is none, and these are not called."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol

from acclimate.runtime.scheduler.around import Around
from acclimate.runtime.scheduler.report import StepReport
from acclimate.runtime.scheduler.tickets import Answer, Ticket
from acclimate.runtime.service_protocol import ServiceProtocol


class RpcSpan(Protocol):
    """The span of one rpc."""

    def end(self, code: int, *, failed: bool) -> None:
        """With its status code, and whether that is the daemon's fault."""


class Tracer(Protocol):
    """Called on the event loop's thread, but for `close`."""

    def rpc(self, method: str, metadata: Sequence[tuple[str, Any]]) -> RpcSpan:
        """Begin an rpc, `/package.Service/Method`, in the task that is its own; metadata may name a trace."""

    def around(self, service: ServiceProtocol) -> ServiceProtocol:
        """The service, with a span around each inference."""

    def answered(self, ticket: Ticket, answer: Answer) -> None:
        """A request was answered: where its time went. Told before its samples can be learnt from."""

    @property
    def step(self) -> Around:
        """Around a step."""

    def stepped(self, report: StepReport) -> None:
        """What the step has made of one session."""

    def log_fields(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A structlog processor that names trace and span in lines written within one."""

    def close(self) -> None:
        """Send what is left, and give up soon where nobody takes it."""
