"""Every live session, by model and id: opening, finding, listing, resetting, closing."""

from __future__ import annotations

import base64
import binascii
import math
import re
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from acclimate.adapters.guards import Guards
from acclimate.adapters.watch import Watch
from acclimate.runtime.clock import Clock
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from acclimate.runtime.sessions.cohort import Cohort, CohortKey, build_cohort, cohort_key
from acclimate.runtime.sessions.gathering import AnswerLog, SampleBuffer
from acclimate.runtime.sessions.session import Session, SessionKey, set_budget
from acclimate.runtime.types import Budget, CreateSession

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")
DEFAULT_PAGE, MAX_PAGE = 100, 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """What the table gives every session, and how many it holds.

    `default_parameters` are those of the recipes that have them; a client's own come before them.
    """

    max_sessions: int
    buffer_rows: int
    remembered_answers: int
    default_recipe: str
    default_parameters: Mapping[str, float]
    default_budget: Budget


class SessionTable:
    """Live sessions and their cohorts. Touched on the event loop's thread only."""

    def __init__(
        self, engines: Mapping[str, Engine], guards: Guards, limits: Limits, clock: Clock, watch: Watch | None = None
    ) -> None:
        self._engines = engines
        self._guards = guards
        self._watch = watch
        self._limits = limits
        self._clock = clock
        self._sessions: dict[SessionKey, Session] = {}
        self._cohorts: dict[CohortKey, Cohort] = {}
        self.created: Counter[str] = Counter()
        self.deleted: Counter[str] = Counter()

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
        engine = self._engines.get(request.model)
        if engine is None:
            raise unknown_model(request.model, self._engines)
        session_id = uuid.uuid4().hex if request.session_id is None else request.session_id
        if not SESSION_ID.fullmatch(session_id):
            raise InvalidArgument(
                "SESSION_ID_INVALID",
                f"session_id is {session_id[:140]!r}; use 1 to 128 letters, digits, '.', '_', '~' or '-', "
                "starting with a letter or digit",
                session_id=session_id[:140],
            )
        key = (request.model, session_id)
        if key in self._sessions:
            raise AlreadyExists(
                "SESSION_EXISTS",
                f"session {session_id!r} of model {request.model!r} exists",
                session=session_id,
            )
        chosen = _checked_budget(request.budget or self._limits.default_budget)
        recipe = self._limits.default_recipe if request.recipe is None else request.recipe
        cohort = self._cohort(engine, request, recipe)
        if len(self._sessions) >= self._limits.max_sessions:
            raise ResourceExhausted(
                "SESSIONS_FULL",
                f"{len(self._sessions)} sessions are open, as many as sessions.max_sessions allows; delete some",
                limit=self._limits.max_sessions,
            )
        self._cohorts[cohort.key] = cohort
        now, labels = self._clock.wall(), cohort.recipe.reads_labels
        session = Session(
            model=request.model,
            id=session_id,
            cohort=cohort,
            row=cohort.bank.allocate(),
            created_at=now,
            last_used_at=now,
            buffer=SampleBuffer(self._limits.buffer_rows, self._limits.buffer_rows if labels else 0),
            answers=AnswerLog(self._limits.remembered_answers),
            from_sequence=from_sequence,
        )
        set_budget(session, chosen, self._clock.monotonic())
        self._sessions[key] = session
        self.created[request.model] += 1
        return session

    def _cohort(self, engine: Engine, request: CreateSession, recipe: str) -> Cohort:
        key = cohort_key(request.model, recipe, request.parameters, self._limits.default_parameters)
        cohort = self._cohorts.get(key) or build_cohort(key, engine, self._guards, self._watch)
        if cohort.recipe.batch_rows > self._limits.buffer_rows:
            raise InvalidArgument(
                "RECIPE_INVALID",
                f"batch_rows is {cohort.recipe.batch_rows}; a session gathers at most {self._limits.buffer_rows} "
                "samples (sessions.buffer_rows)",
                batch_rows=cohort.recipe.batch_rows,
            )
        return cohort

    def find(self, model: str, session_id: str) -> Session | None:
        """The session, or None."""
        return self._sessions.get((model, session_id))

    def get(self, model: str, session_id: str) -> Session:
        """The session.

        Raises:
            NotFound: no such model or session; the message says how to open one.
        """
        if model not in self._engines:
            raise unknown_model(model, self._engines)
        session = self._sessions.get((model, session_id))
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
        session.close()
        del self._sessions[session.key]
        if session.cohort.bank.live == 0:
            # Clients choose recipe parameters freely; what nobody runs any more must not pile up.
            del self._cohorts[session.cohort.key]
        self.deleted[session.model] += 1

    def page(self, model: str | None, size: int, token: str) -> tuple[list[Session], str]:
        """Sessions ordered by model and id, after the token's place, and the token of the next page.

        Raises:
            InvalidArgument: a negative size, or a token this table did not give out. NotFound: no such model.
        """
        if size < 0:
            raise InvalidArgument("PAGE_SIZE_INVALID", f"page_size is {size}; it must not be negative", page_size=size)
        if model is not None and model not in self._engines:
            raise unknown_model(model, self._engines)
        size = min(size or DEFAULT_PAGE, MAX_PAGE)
        keys = sorted(key for key in self._sessions if model is None or key[0] == model)
        start = bisect_right(keys, _decode(token)) if token else 0
        page = keys[start : start + size]
        more = start + size < len(keys)
        return [self._sessions[key] for key in page], _encode(page[-1]) if more else ""

    def rebuilt(
        self, model: str, engine: Engine, made: Mapping[CohortKey, Cohort | str] | None = None
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


def _checked_budget(chosen: Budget) -> Budget:
    for name, value in (("refill_ms_per_s", chosen.refill_ms_per_s), ("capacity_ms", chosen.capacity_ms)):
        if not math.isfinite(value) or value < 0:
            raise InvalidArgument(
                "BUDGET_INVALID", f"budget.{name} is {value}; it must be finite and not negative", field=name
            )
    return chosen


def _encode(key: SessionKey) -> str:
    return base64.urlsafe_b64encode("\0".join(key).encode()).decode()


def _decode(token: str) -> SessionKey:
    try:
        model, session_id = base64.urlsafe_b64decode(token.encode()).decode().split("\0")
    except (ValueError, binascii.Error):
        raise InvalidArgument(
            "PAGE_TOKEN_INVALID", "page_token was not given out by this daemon; start again without one"
        ) from None
    return model, session_id
