"""The service behind every edge that language models have: texts are generated and scored, sessions learn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager

from acclimate.adapters.fields import THETA
from acclimate.adapters.layout import Float
from acclimate.runtime.account import Account
from acclimate.runtime.clock import Clock
from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.generation.commit import Committing
from acclimate.runtime.generation.desk import Desk
from acclimate.runtime.generation.lessons import Lessons, Pupil
from acclimate.runtime.generation.model import writes_text
from acclimate.runtime.generation.preparing import budget_of, first_lesson, pupil_of
from acclimate.runtime.generation.purse import Purse
from acclimate.runtime.generation.reading import prompt_ids, sampling_of
from acclimate.runtime.generation.scoring import score_ids, scores
from acclimate.runtime.generation.studying import examples, recipe_of, refuse_paused
from acclimate.runtime.generation.text import Subject, Text
from acclimate.runtime.generation.types import (
    GenerateReply,
    GenerateRequest,
    LanguageSnapshot,
    LearnOutcome,
    LearnProgress,
    LearnRequest,
    ScoreReply,
    ScoreRequest,
    Strategy,
)
from acclimate.runtime.sequences import Sequences
from acclimate.runtime.sessions.changing import check_etag
from acclimate.runtime.sessions.residency import Residency
from acclimate.runtime.sessions.session import Session, in_use


class Generating:
    """Touched on the event loop's thread only, but for `snapshot`.

    Args:
        desks: of the language models by name.
        residency: sessions.
        account: the books of models and sessions.
        clock: the time.
        purse: who pays for lessons.
    """

    def __init__(
        self, desks: Mapping[str, Desk], residency: Residency, account: Account, clock: Clock, purse: Purse
    ) -> None:
        self._desks = desks
        self._lessons = {
            name: Lessons(desk, purse, Committing(desk, account, residency.may_commit, self.now).commit, self.now)
            for name, desk in desks.items()
        }
        self.sequences = Sequences(residency, account)
        self._residency, self._account, self._clock = residency, account, clock

    def snapshot(self) -> tuple[LanguageSnapshot, ...]:
        """Figures of every language model, by name; safe from any thread."""
        return tuple(self._desks[name].snapshot() for name in sorted(self._desks))

    @property
    def any(self) -> bool:
        """Whether there are language models at all."""
        return bool(self._desks)

    def writes(self, model: str) -> bool:
        """Whether there is a language model of this name."""
        return model in self._desks

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateReply, None]:
        """Who writes the text, then its tokens; before that it may learn. The iterator has to be closed.

        Raises:
            NotFound: no such model or session. FailedPrecondition: the model writes no text. InvalidArgument: prompt,
            sampling, budget or what is to be learnt. ResourceExhausted: too many texts wait. Unavailable: the daemon
            drains. What `learn` raises, where something is to be learnt first.
        """
        with self._counted(request.model) as arrived:
            desk = self._desk(request.model)
            limits = desk.limits
            sampling = sampling_of(request.drawing, limits.default_tokens, limits.max_tokens, limits.max_samples)
            budget, learn = budget_of(request), first_lesson(request)
            session = await self._session(request.model, request.session_id)
            with in_use(session):
                drawing = request.drawing
                desk.writer.admit(drawing.samples if drawing.strategy is not Strategy.NONE else 1)
                ids = await desk.read(lambda: prompt_ids(desk.engine, request.prompt))
                own, lesson = None, None
                if session is not None and learn is not None:
                    own, lesson = await self._learnt(await pupil_of(desk, session, learn, budget, ids, arrived))
                    session = await self._residency.get(request.model, session.id)
                    budget = budget.less(lesson.tokens, lesson.cost_ms)
                theta, version = self._parameters(desk, session)
                text = Text(desk, Subject(session, version, ids, arrived, budget, lesson), self.ended, self.now)
                tokens = text.written(sampling, theta if own is None else own, drawing)
                async with aclosing(tokens), aclosing(text.replies(tokens)) as replies:
                    async for reply in replies:
                        yield reply

    async def learn(self, request: LearnRequest) -> AsyncGenerator[LearnProgress | LearnOutcome, None]:
        """Progress of a lesson, then its outcome; the iterator has to be closed.

        Raises:
            NotFound: no such model or session. Aborted: the etag is another. FailedPrecondition: the model writes no
            text, or the session is paused. InvalidArgument: material or recipe. ResourceExhausted: too many lessons
            wait, or the budget is empty. Unavailable: the daemon drains.
        """
        with self._counted(request.model) as arrived:
            desk = self._desk(request.model)
            session = await self._residency.get(request.model, request.session_id)
            with in_use(session):
                check_etag(session, request.etag)
                name, parameters = recipe_of(request, session)
                shown = await desk.read(lambda: examples(desk.engine, name, request.material))
                check_etag(session, request.etag)
                refuse_paused(session)
                pupil = Pupil(session, name, parameters, shown, request.max_tokens, request.max_ms, arrived)
                async with aclosing(self._lessons[request.model].attend(pupil)) as updates:
                    async for update in updates:
                        yield update

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores of texts.

        Raises:
            NotFound: no such model or session. FailedPrecondition: the model writes no text. InvalidArgument: a text.
            ResourceExhausted: too many requests wait. Unavailable: the daemon drains.
        """
        with self._counted(request.model):
            desk = self._desk(request.model)
            session = await self._session(request.model, request.session_id)
            with in_use(session):
                rows = await desk.read(lambda: score_ids(desk.engine, request.context, request.texts))
                theta, version = self._parameters(desk, session)
                found = await desk.score(lambda: scores(desk.engine, rows, theta, request.each_token))
            desk.tally.scored_tokens += sum(scored.tokens for scored in found)
            if session is not None and session.open:
                self._account.used(session, len(found))
            return ScoreReply(tuple(found), version)

    async def drain(self, grace_seconds: float) -> None:
        """Refuse what is new, let texts be finished for `grace_seconds`, cut off the rest."""
        for desk in self._desks.values():
            desk.close()
        lessons = [asyncio.create_task(lessons.release(grace_seconds)) for lessons in self._lessons.values()]
        busy = [desk for desk in self._desks.values() if not desk.writer.idle.is_set()]
        waits = [asyncio.to_thread(desk.writer.idle.wait, grace_seconds) for desk in busy]
        await asyncio.gather(*waits, *lessons)
        await asyncio.gather(*(asyncio.to_thread(desk.release) for desk in self._desks.values()))

    def ended(self, text: Text, ending: str) -> None:
        """Count a text."""
        tally = text.desk.tally
        tally.texts[ending] += 1
        tally.prompt_tokens += len(text.subject.prompt)
        tally.generated_tokens += text.generated
        session = text.subject.session
        if session is not None and session.open:
            self._account.used(session, 1, text.scores())

    def now(self) -> float:
        """Seconds, on the service's clock."""
        return self._clock.monotonic()

    async def _learnt(self, pupil: Pupil) -> tuple[Float | None, LearnOutcome]:
        """`theta [P]` that only the text is to be written with, if so; and how the lesson before it ended."""
        async with aclosing(self._lessons[pupil.session.model].attend(pupil)) as updates:
            async for update in updates:
                if isinstance(update, LearnOutcome):
                    return pupil.theta if pupil.discard else None, update
        raise AssertionError("a lesson ends with its outcome")

    def _desk(self, model: str) -> Desk:
        return self._desks[writes_text(self._residency.table.engine(model)).manifest.name]

    async def _session(self, model: str, session_id: str | None) -> Session | None:
        return None if session_id is None else await self._residency.get(model, session_id)

    def _parameters(self, desk: Desk, session: Session | None) -> tuple[Float, int]:
        """`theta [P]` that serves a session now, or the base's, and its version."""
        if session is None:
            return desk.engine.source.theta, 0
        return session.cohort.bank.view(THETA, session.row), session.version

    @contextmanager
    def _counted(self, model: str) -> Iterator[float]:
        """Count a request by how it ended; when it arrived."""
        arrived, code = self.now(), "INTERNAL"
        try:
            yield arrived
            code = "OK"
        except AcclimateError as error:
            code = error.code.value
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        finally:
            self._account.finished(model, code, self.now() - arrived)
