"""The service behind every edge: models, sessions, answers, and what is learnt from them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from acclimate.adapters.accuracy import score
from acclimate.adapters.manifest import Manifest
from acclimate.runtime.booking import book
from acclimate.runtime.errors import AcclimateError, Unavailable
from acclimate.runtime.feedback import settle
from acclimate.runtime.generation.model import Model, answers_arrays
from acclimate.runtime.generation.service import Generating
from acclimate.runtime.inference import Sequence as SequenceParameters
from acclimate.runtime.inference import check_version, checked_inputs, sequence_of
from acclimate.runtime.lifecycle import Lifecycle
from acclimate.runtime.parts import Parts
from acclimate.runtime.replying import Readers, reply
from acclimate.runtime.repository.control import ModelRepository
from acclimate.runtime.scheduler.admission import Admission, step_aside
from acclimate.runtime.scheduler.tickets import Answer, Ticket
from acclimate.runtime.scheduler.usage import Usage
from acclimate.runtime.seeding import plant
from acclimate.runtime.sequences import Sequences
from acclimate.runtime.sessions import listing, shelving
from acclimate.runtime.sessions.session import Session, exported, in_use
from acclimate.runtime.sessions.terms import Terms
from acclimate.runtime.sight import Sight
from acclimate.runtime.snapshotting import snapshot_of
from acclimate.runtime.types import (
    CreateSession,
    Event,
    EventKind,
    ExportedSession,
    Feedback,
    FeedbackResult,
    InferReply,
    InferRequest,
    ServiceSnapshot,
    SessionPage,
    SessionQuery,
    SessionView,
)
from acclimate.runtime.work import Work


class Service:
    """Implements `ServiceProtocol`; every method runs on the event loop's thread but `snapshot`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started_at = parts.clock.wall()
        self._running = self._draining = False
        self._work = Work(parts)
        self._sequences = Sequences(parts.residency, parts.account)
        self.lifecycle = Lifecycle(parts.residency, parts.seeder, parts.learner, parts.clock, parts.max_snapshots)
        self._readers = Readers(parts.hub, parts.clock, parts.max_queue)

    @property
    def sight(self) -> Sight:
        """Looking at sessions without using them."""
        return Sight(self._parts.residency, self._parts.hub)

    @property
    def repository(self) -> ModelRepository:
        """What changes which models are served."""
        return self._parts.repository

    @property
    def admission(self) -> Admission:
        """What says whether there is room for one more request."""
        return self._parts.predictor.admission

    @property
    def generating(self) -> Generating:
        """What language models do."""
        return self._parts.generating

    @property
    def ready(self) -> bool:
        """Whether new work is accepted."""
        return self._running and not self._draining

    def start(self) -> None:
        """Begin to serve; must be called on the running event loop."""
        self._work.start()
        self._running = True

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new requests, answer those queued, let the step under way finish, store all, end every watch."""
        self._draining = True
        await self._work.drain(grace_seconds)

    def models(self) -> tuple[Manifest, ...]:
        """Manifests of the served models, by name."""
        return tuple(engine.manifest for engine in self._parts.served())

    def model(self, name: str, version: str = "") -> Manifest:
        """One manifest."""
        manifest = self._engine(name).manifest
        check_version(manifest, version)
        return manifest

    async def infer(self, request: InferRequest) -> InferReply:
        """Answer a request; see `ServiceProtocol.infer`."""
        arrived, code, name = self._parts.clock.monotonic(), "INTERNAL", request.id
        try:
            reply = await self._infer(request)
            code, name = "OK", reply.id
            return reply
        except AcclimateError as error:
            code = error.code.value
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            self._parts.account.finished(request.model, code, self._parts.clock.monotonic() - arrived, name)

    async def create_session(self, request: CreateSession) -> SessionView:
        """Open a session, at its seed if it has one and the seed passes."""
        prepared = None
        if request.seed is not None:
            engine = self._engine(request.model)
            prepared = await self._parts.seeder.prepare(engine, request.seed)
            if self._engine(request.model) is not engine:
                raise Unavailable("MODEL_REPLACED", "the model was replaced; try again", retry_after_seconds=0.0)
        await self._parts.residency.refuse_taken(request.model, request.session_id)
        session = await self._sequences.open(request)
        if prepared is not None:
            plant(session, prepared)
            self._parts.account.happened(session, EventKind.SEEDED, 0, prepared.samples)
        return self._view(session)

    async def get_session(self, model: str, session_id: str) -> SessionView:
        """The session as it is."""
        return self._view(await self._parts.residency.get(model, session_id))

    async def list_sessions(
        self, model: str | None, page_size: int, page_token: str, text: str = "", every_tenant: bool = False
    ) -> SessionPage:
        """A page of sessions."""
        query = SessionQuery(model, page_size, page_token, text, every_tenant)
        return await listing.page(self._parts.residency, query)

    async def reset_session(self, model: str, session_id: str) -> SessionView:
        """Back to the source."""
        session = await self._parts.residency.get(model, session_id)
        self._sequences.restore(session)
        return self._view(session)

    async def export_session(self, model: str, session_id: str) -> ExportedSession:
        """What the session has learnt."""
        return exported(await self._parts.residency.get(model, session_id))

    async def delete_session(self, model: str, session_id: str) -> None:
        """Close and forget."""
        await shelving.delete(self._parts.residency, model, session_id)

    async def feedback(self, model: str, session_id: str, labels: Sequence[Feedback]) -> FeedbackResult:
        """Compare labels with remembered answers. One label that is not acceptable refuses them all."""
        session = await self._parts.residency.get(model, session_id)
        classes = answers_arrays(self._engine(model)).manifest.classes
        result = settle(session, labels, len(classes), self._parts.account)
        await self._learn(session)
        return result

    def watch(
        self, model: str | None, session_id: str | None, kinds: Collection[EventKind] = (), after: str = ""
    ) -> AsyncIterator[Event]:
        """Events from now on, or from after a token."""
        if model is not None and session_id is not None:
            hub = partial(self._parts.hub.watch, model, session_id, kinds, after)
            return shelving.watch(self._parts.residency, hub, model, session_id)
        if model is not None:
            self._engine(model)
        return self._parts.hub.watch(model, session_id, kinds, after)

    def snapshot(self) -> ServiceSnapshot:
        """Figures for metrics."""
        return snapshot_of(self._parts, self.ready, self._draining, self._started_at)

    def answered(self, batch: Sequence[tuple[Ticket, Answer]]) -> None:
        """Called by the predictor with every batch: account for it, gather its samples, wake the learner."""
        book(self._parts, batch)

    async def learn_before_reply(self, tickets: list[Ticket]) -> None:
        """Synchronous mode: step each session of a batch until it has too few samples left."""
        for ticket in tickets:
            if ticket.session is not None:
                ticket.session.terms = ticket.terms
                await self._learn(ticket.session)
                ticket.session.terms = None

    async def _learn(self, session: Session) -> None:
        """Step a session that has gathered enough: now in synchronous mode, else when its turn comes."""
        if not self._parts.synchronous:
            self._parts.learner.notify(session)
        while self._parts.synchronous and session.open and session.due:
            if not await self._parts.learner.step([session]):
                return

    async def _infer(self, request: InferRequest) -> InferReply:
        engine = answers_arrays(self._engine(request.model))
        sequence = sequence_of(request.parameters)
        inputs = checked_inputs(request, engine.manifest, self._parts.max_rows)
        self._parts.predictor.admit(request.deadline)
        session = await self._sequence_session(request.model, sequence)
        name = request.id or f"{random.getrandbits(128):032x}"
        deadline, learn = request.deadline, sequence.learn
        terms = Terms(sequence.allowance, sequence.resent)
        with in_use(session):
            try:
                if session is not None and sequence.min_version:
                    step_aside()
                    await self._readers.reach(session, sequence.min_version, deadline)
                    engine = answers_arrays(self._engine(request.model))
                    inputs = checked_inputs(request, engine.manifest, self._parts.max_rows)
                answer = await self._parts.predictor.submit(
                    engine, session, inputs, deadline, learn, name, terms, sequence.priority
                )
                if session is not None and learn and session.cohort.recipe.answers_late:
                    answer = await self._late(session, name, inputs, answer, deadline, terms)
            except BaseException:
                if session is not None and sequence.start:
                    self._sequences.forget_unused(session)
                raise
        answered = reply(name, session, answer, terms)
        if sequence.end and session is not None:
            self._sequences.end(session)
        return answered

    async def _late(
        self,
        session: Session,
        name: str,
        inputs: NDArray[Any],
        answer: Answer,
        deadline: float | None,
        terms: Terms,
    ) -> Answer:
        """Answer with a step over the request's own samples, and account for that in place of the first answer."""
        if session.knows(name, terms):
            return answer
        step_aside()
        logits = await self._parts.learner.answer(session, inputs, answer.logits, deadline, terms)
        answer = replace(answer, logits=logits, scores=score(logits))
        self._parts.account.answered(session.model, [(session, answer)])
        session.answers.remember(name, answer.scores.label)
        return answer

    async def _sequence_session(self, model: str, sequence: SequenceParameters) -> Session | None:
        """The session a request belongs to; `sequence_start` opens it, or resets one that exists."""
        if sequence.session_id is None:
            return None
        if not sequence.start:
            return await self._parts.residency.get(model, sequence.session_id)
        return await self._sequences.begin(model, sequence.session_id, sequence.recipe)

    def usages(self, name: str, version: str = "") -> tuple[tuple[Manifest, Usage], ...]:
        """What a model, or with an empty name each, has done since it was loaded."""
        manifests = (self.model(name, version),) if name else self.models()
        return tuple((manifest, self._parts.account.usages[manifest.name]) for manifest in manifests)

    def _engine(self, model: str) -> Model:
        return self._parts.table.engine(model)

    def _view(self, session: Session) -> SessionView:
        return session.view(self._parts.learner.budget_time(session))
