"""What a reply says besides the logits, and waiting until a session has learnt what its reader wants to see."""

from __future__ import annotations

import asyncio

from acclimate.adapters.accuracy import difference_of_confidences, mean
from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, Unavailable
from acclimate.runtime.events import EventHub
from acclimate.runtime.scheduler.tickets import Answer
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.sessions.terms import OFF, Terms
from acclimate.runtime.types import InferReply, Scalar


def reply(request_id: str, session: Session | None, answer: Answer, terms: Terms) -> InferReply:
    """The reply to a request of this id: its answer, and as parameters what gave it and what became of its samples."""
    manifest = answer.engine.manifest
    parameters: dict[str, Scalar] = {
        "acclimate_version": answer.version,
        "acclimate_entropy": mean(answer.scores.entropy),
        "acclimate_confidence": mean(answer.scores.confidence),
        "acclimate_outcome": OFF if session is None else terms.fate,
    }
    if session is not None:
        seen = session.telemetry
        parameters |= {
            "acclimate_session": session.id,
            "acclimate_session_version": session.version,
            "acclimate_estimated_accuracy": seen.above,
            "acclimate_estimated_accuracy_doc": difference_of_confidences(seen, manifest.calibration),
            "acclimate_cost_ms": terms.ms,
        }
    outputs = {manifest.outputs[0].name: answer.logits}
    return InferReply(manifest.name, manifest.version, request_id, outputs, parameters)


class Readers:
    """Requests that wait until a session has reached a version.

    Args:
        hub: where every change of a session is told.
        clock: that of deadlines.
        limit: how many may wait.
    """

    def __init__(self, hub: EventHub, clock: Clock, limit: int) -> None:
        self._hub = hub
        self._clock = clock
        self._limit = limit
        self._waiting = 0

    async def reach(self, session: Session, version: int, deadline: float | None) -> None:
        """Return once the session's parameters are of `version` or later.

        Raises:
            FailedPrecondition: no step is due or under way that could bring it there, or the session was closed.
            DeadlineExceeded: the steps did not end in time. ResourceExhausted: too many wait already. Unavailable:
            the daemon drains.
        """
        if session.version >= version:
            return
        if self._waiting >= self._limit:
            raise ResourceExhausted(
                "QUEUE_FULL",
                f"{self._waiting} requests wait for steps, as many as scheduler.max_queue allows",
                retry_after_seconds=0.1,
                limit=self._limit,
            )
        self._waiting += 1
        try:
            while session.version < version:
                self._refuse_hopeless(session, version)
                await self._change(deadline)
        finally:
            self._waiting -= 1

    def _refuse_hopeless(self, session: Session, version: int) -> None:
        if self._hub.closed:
            raise Unavailable("DRAINING", "the daemon is draining; send the request to another one")
        rows = session.cohort.recipe.batch_rows
        if session.open and (session.stepping or 0 < rows <= len(session.buffer)):
            return
        raise FailedPrecondition(
            "VERSION_NOT_REACHED",
            f"session {session.id!r} is at version {session.version}, not yet at {version}, and no step is due; send "
            "it more samples, or ask for less with acclimate_min_version",
            session=session.id,
            version=session.version,
            min_version=version,
        )

    async def _change(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - self._clock.monotonic()
        try:
            await asyncio.wait_for(self._hub.changed(), left)
        except TimeoutError:
            raise DeadlineExceeded(
                "DEADLINE_EXCEEDED", "the deadline passed before the session had reached acclimate_min_version"
            ) from None
