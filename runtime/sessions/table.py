"""Every live session, by tenant, model and id: opening, finding, listing, resetting, closing.

The tenant is the caller's (`security/caller.py`), read here and nowhere between here and the edge: whatever asks for
a session by its name gets one of the caller's own, or is told that there is none.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from acclimate.adapters.guards import Guards
from acclimate.adapters.watch import Watch
from acclimate.runtime.clock import Clock
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from acclimate.runtime.figures import TenantSnapshot
from acclimate.runtime.generation.model import LanguageModel, Model
from acclimate.runtime.security.caller import current
from acclimate.runtime.security.quotas import Quotas
from acclimate.runtime.sessions.cohort import Cohort, CohortKey, build_cohort, cohort_key
from acclimate.runtime.sessions.gathering import AnswerLog, SampleBuffer
from acclimate.runtime.sessions.labels import checked_labels
from acclimate.runtime.sessions.recording import Moment, check_record, reinstate
from acclimate.runtime.sessions.session import Session, SessionKey, set_budget
from acclimate.runtime.sessions.settings import Limits, checked_budget, checked_ttl
from acclimate.runtime.store.base import SessionRecord, Usage
from acclimate.runtime.types import Budget, CreateSession, SessionView

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")


class SessionTable:
    """Live sessions and their cohorts. Touched on the event loop's thread only."""

    def __init__(
        self,
        engines: Mapping[str, Model],
        guards: Guards,
        limits: Limits,
        clock: Clock,
        watch: Watch | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self._engines = engines
        self._guards, self._watch, self._quotas = guards, watch, quotas
        self._limits = limits
        self._clock = clock
        self._sessions: dict[SessionKey, Session] = {}
        self._cohorts: dict[CohortKey, Cohort] = {}
        self.created: Counter[str] = Counter()
        self.deleted: Counter[str] = Counter()

    def default_budget(self, model: str) -> Budget:
        """The budget of a model's session that chooses none."""
        return self._limits.budget_of(isinstance(self._engines.get(model), LanguageModel))

    @property
    def default_ttl_seconds(self) -> float | None:
        """The time-to-live of a session that chooses none; None: for ever."""
        return self._limits.default_ttl_seconds

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def open(self, request: CreateSession, *, from_sequence: bool = False) -> Session:
        """Open a session at the source.

        Raises:
            NotFound: no such model. AlreadyExists: the id is taken. InvalidArgument: id, recipe, parameter or
            budget is not acceptable. ResourceExhausted: the table is full. Nothing is changed then.
        """
        engine = self.engine(request.model)
        session_id = uuid.uuid4().hex if request.session_id is None else request.session_id
        if not SESSION_ID.fullmatch(session_id):
            raise InvalidArgument(
                "SESSION_ID_INVALID",
                f"session_id is {session_id[:140]!r}; use 1 to 128 letters, digits, '.', '_', '~' or '-', "
                "starting with a letter or digit",
                session_id=session_id[:140],
            )
        key = self.key(request.model, session_id)
        if key in self._sessions:
            raise AlreadyExists(
                "SESSION_EXISTS",
                f"session {session_id!r} of model {request.model!r} exists",
                model=request.model,
                session=session_id,
            )
        writes = isinstance(engine, LanguageModel)
        chosen = checked_budget(request.budget or self._limits.budget_of(writes))
        ttl, labels = checked_ttl(request.ttl_seconds, self.default_ttl_seconds), checked_labels(request.labels)
        recipe = self._limits.recipe_of(writes) if request.recipe is None else request.recipe
        own = cohort_key(request.model, recipe, request.parameters, self._limits.default_parameters, writes)
        cohort = self._cohort(engine, own)
        if len(self._sessions) >= self._limits.max_sessions:
            raise ResourceExhausted(
                "SESSIONS_FULL",
                f"{len(self._sessions)} sessions are open, as many as sessions.max_sessions allows; delete some",
                limit=self._limits.max_sessions,
            )
        if self._quotas is not None:
            self._quotas.check(key[0], cohort.bank.row_bytes)
        session = self._placed(key, cohort)
        session.from_sequence, session.ttl_seconds, session.labels = from_sequence, ttl, labels
        set_budget(session, chosen, self._clock.monotonic())
        self._sessions[key] = session
        session.charged = session.kept_bytes
        if self._quotas is not None:
            self._quotas.entered(session.tenant, session.charged)
        self.created[request.model] += 1
        return session

    def revive(self, record: SessionRecord, folded: Folded | None, now: Moment) -> Session:
        """Open the session that a record describes, `folded` being what answers it.

        Raises:
            NotFound: the model is not served. FailedPrecondition: the record is of another bundle, or of a layout or
            recipe that this daemon does not have. Nothing is changed then.
        """
        engine = self.engine(record.model)
        check_record(record, engine.manifest)
        session = self._placed(record.key, self.home(record, engine))
        try:
            reinstate(session, record, folded, now)
        except FailedPrecondition:
            self._give_up(session)
            raise
        self._sessions[session.key] = session
        return session

    def home(self, record: SessionRecord, engine: Model) -> Cohort:
        """The cohort on `engine` that a recorded session belongs in, or FailedPrecondition; safe from any thread."""
        writes = isinstance(engine, LanguageModel)
        try:
            return self._cohort(engine, cohort_key(record.model, record.recipe, record.parameters, {}, writes))
        except InvalidArgument as error:
            raise FailedPrecondition(
                "SESSION_STATE_MISFIT",
                f"session {record.session_id!r} cannot run here as it was recorded: {error.message}",
                model=record.model,
                session=record.session_id,
            ) from error

    def glimpse(self, record: SessionRecord, now: Moment) -> SessionView:
        """A session as its owner would see it if it were live; `revive` says what is raised."""
        session = self.revive(record, None, now)
        view = session.view(now.budget)
        self.evict(session)
        return view

    def _placed(self, key: SessionKey, cohort: Cohort) -> Session:
        """A session in a row of its own, not yet in the table."""
        self._cohorts[cohort.key] = cohort
        now, labels = self._clock.wall(), cohort.recipe.reads_labels
        return Session(
            tenant=key[0],
            model=key[1],
            id=key[2],
            cohort=cohort,
            row=cohort.bank.allocate(),
            created_at=now,
            last_used_at=now,
            buffer=SampleBuffer(self._limits.buffer_rows, self._limits.buffer_rows if labels else 0),
            answers=AnswerLog(self._limits.remembered_answers),
        )

    def _cohort(self, engine: Model, key: CohortKey) -> Cohort:
        cohort = self._cohorts.get(key)
        if cohort is None or cohort.engine is not engine:
            cohort = build_cohort(key, engine, self._guards, self._watch)
        if cohort.recipe.batch_rows > self._limits.buffer_rows:
            raise InvalidArgument(
                "RECIPE_INVALID",
                f"batch_rows is {cohort.recipe.batch_rows}; a session gathers at most {self._limits.buffer_rows} "
                "samples (sessions.buffer_rows)",
                batch_rows=cohort.recipe.batch_rows,
            )
        return cohort

    def key(self, model: str, session_id: str) -> SessionKey:
        """What a session of this name is found under."""
        return current().tenant, model, session_id

    def serves(self, model: str) -> bool:
        """Whether there is such a model."""
        return model in self._engines

    def engine(self, model: str) -> Model:
        """What computes the model; NotFound if it is not served."""
        engine = self._engines.get(model)
        if engine is None:
            raise unknown_model(model, self._engines)
        return engine

    def at(self, key: SessionKey) -> Session | None:
        """The live session under a key, or None."""
        return self._sessions.get(key)

    def find(self, model: str, session_id: str) -> Session | None:
        """The session, or None."""
        return self._sessions.get(self.key(model, session_id))

    def get(self, model: str, session_id: str) -> Session:
        """The session.

        Raises:
            NotFound: no such model or session; the message says how to open one.
        """
        if model not in self._engines:
            raise unknown_model(model, self._engines)
        session = self.find(model, session_id)
        if session is None:
            raise NotFound(
                "SESSION_NOT_FOUND",
                f"session {session_id!r} of model {model!r} does not exist; open it with CreateSession, or send "
                "sequence_start=true with its first request",
                model=model,
                session=session_id,
            )
        return session

    def close(self, session: Session) -> None:
        """Forget a session and give its row back."""
        self.departed(session.key, session.charged)
        self.evict(session)
        self.deleted[session.model] += 1

    def evict(self, session: Session) -> None:
        """Give a session's row back; it may live on in a store."""
        del self._sessions[session.key]
        self._give_up(session)

    def _give_up(self, session: Session) -> None:
        session.close()
        if session.cohort.bank.live == 0:
            # Clients choose recipe parameters freely; what nobody runs any more must not pile up.
            del self._cohorts[session.cohort.key]

    def resized(self, session: Session) -> None:
        """Charge the session's tenant for what it takes by now: it has other snapshots, or another row."""
        if self._quotas is not None:
            self._quotas.resized(session.tenant, session.kept_bytes - session.charged)
        session.charged = session.kept_bytes

    def departed(self, key: SessionKey, state_bytes: int) -> None:
        """A session of this size is gone for good, in memory and in the store."""
        if self._quotas is not None:
            self._quotas.left(key[0], state_bytes)

    def tenants(self) -> tuple[TenantSnapshot, ...]:
        """Figures of the tenants that the configuration names; safe from any thread."""
        return () if self._quotas is None else self._quotas.figures()

    def recounted(self, usage: Mapping[str, Usage]) -> None:
        """What every tenant has, in memory and in the store, as a look at the store says."""
        if self._quotas is not None:
            self._quotas.recounted(usage)

    def refuse_larger(self, session: Session, state_bytes: int) -> None:
        """Raise ResourceExhausted if so many bytes more would exceed the quota of the session's tenant."""
        if self._quotas is not None:
            self._quotas.check(session.tenant, state_bytes, sessions=0)

    def rebuilt(
        self, model: str, engine: Model, made: Mapping[CohortKey, Cohort | str] | None = None
    ) -> dict[CohortKey, Cohort | str]:
        """Cohorts on another engine for those that the model has, or why one cannot be; nothing is changed.

        Those `made` before are taken, the others are empty. Safe from any thread.
        """
        cohorts: dict[CohortKey, Cohort | str] = dict(made or {})
        for key in tuple(self._cohorts):
            if key[0] == model and key not in cohorts:
                try:
                    cohorts[key] = build_cohort(key, engine, self._guards, self._watch)
                except InvalidArgument as error:
                    cohorts[key] = error.message
        return cohorts

    def rehoused(self, cohorts: Mapping[CohortKey, Cohort | str]) -> None:
        """Sessions have moved into these cohorts; those that stayed empty are given up."""
        for key, cohort in cohorts.items():
            if isinstance(cohort, Cohort) and cohort.bank.live:
                self._cohorts[key] = cohort
            else:
                self._cohorts.pop(key, None)


def unknown_model(name: str, known: Iterable[str]) -> NotFound:
    """The error for a model that is not served."""
    return NotFound(
        "MODEL_NOT_FOUND", f"model {name[:140]!r} is not served; served are {sorted(known)}", model=name[:140]
    )
