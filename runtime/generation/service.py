"""The service behind every edge that language models have: texts are generated and scored, sessions learn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager

import numpy as np

from acclimate.adapters.accuracy import Scores
from acclimate.adapters.fields import THETA
from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.runtime.account import Account
from acclimate.runtime.clock import Clock
from acclimate.runtime.engines.language import Emitted, Sampling
from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.generation.commit import Committing
from acclimate.runtime.generation.desk import Desk
from acclimate.runtime.generation.lessons import Lessons, Pupil
from acclimate.runtime.generation.model import writes_text
from acclimate.runtime.generation.purse import Purse
from acclimate.runtime.generation.reading import prompt_ids, sampling_of
from acclimate.runtime.generation.scoring import score_ids, scores
from acclimate.runtime.generation.searching import drawn
from acclimate.runtime.generation.studying import examples, recipe_of, refuse_paused
from acclimate.runtime.generation.types import (
    Drawing,
    GeneratedToken,
    GenerateReply,
    GenerateRequest,
    LanguageSnapshot,
    LearnOutcome,
    LearnProgress,
    LearnRequest,
    ScoreReply,
    ScoreRequest,
    Strategy,
    Usage,
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
        """Who writes the text, then its tokens; the iterator has to be closed.

        Raises:
            NotFound: no such model or session. FailedPrecondition: the model writes no text. InvalidArgument: prompt or
            sampling. ResourceExhausted: too many texts wait. Unavailable: the daemon drains.
        """
        with self._counted(request.model) as arrived:
            desk = self._desk(request.model)
            limits = desk.limits
            sampling = sampling_of(request.drawing, limits.default_tokens, limits.max_tokens, limits.max_samples)
            session = await self._session(request.model, request.session_id)
            with in_use(session):
                drawing = request.drawing
                desk.writer.admit(drawing.samples if drawing.strategy is not Strategy.NONE else 1)
                ids = await desk.read(lambda: prompt_ids(desk.engine, request.prompt))
                theta, version = self._parameters(desk, session)
                text = Text(desk, session, version, ids, arrived, self)
                if drawing.strategy is Strategy.NONE:
                    tokens = desk.writer.write(ids, theta, sampling)
                else:
                    tokens = text.searched(sampling, theta, drawing)
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
        tally.prompt_tokens += len(text.prompt)
        tally.generated_tokens += text.generated
        if text.session is not None and text.session.open:
            self._account.used(text.session, 1, text.scores())

    def now(self) -> float:
        """Seconds, on the service's clock."""
        return self._clock.monotonic()

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


class Text:
    """One text while it is written: its tokens as they come, and what it has cost so far."""

    def __init__(
        self, desk: Desk, session: Session | None, version: int, prompt: Ids, arrived: float, service: Generating
    ) -> None:
        self.desk, self.session, self.version, self.prompt = desk, session, version, prompt
        self._arrived, self._service = arrived, service
        self._latest = self._first = 0.0
        self._others = 0
        self._logprobs: list[float] = []
        self._entropies: list[float] = []

    @property
    def generated(self) -> int:
        """Tokens so far, those of texts that were not chosen among them."""
        return len(self._logprobs) + self._others

    async def searched(
        self, sampling: Sampling, theta: Float, drawing: Drawing
    ) -> AsyncGenerator[Emitted | None, None]:
        """The tokens of the text that a search chooses, once it has."""
        yield None
        chosen, count = await drawn(self.desk.writer, self.prompt, theta, sampling, drawing.samples, drawing.strategy)
        self._others = count - len(chosen)
        for token in chosen:
            yield token

    async def replies(self, tokens: AsyncIterator[Emitted | None]) -> AsyncGenerator[GenerateReply, None]:
        """Messages of the text; however it ends, that is counted."""
        ending = "cancelled"
        try:
            async for token in tokens:
                if token is None:
                    yield GenerateReply(self.version)
                    continue
                self._took(token)
                ending = token.finish or ending
                shown = GeneratedToken(token.token, token.text, token.logprob, token.entropy)
                usage = self.usage() if token.finish else None
                yield GenerateReply(self.version, shown, token.finish, usage)
        except AcclimateError as error:
            ending = error.code.value
            raise
        finally:
            self._service.ended(self, ending)

    def usage(self) -> Usage:
        """What it has cost so far."""
        first, total = ((at - self._arrived) * 1e3 for at in (self._first, self._latest))
        return Usage(len(self.prompt), self.generated, first, total)

    def scores(self) -> Scores | None:
        """Of its tokens, for the session's telemetry; None before the first."""
        if not self._logprobs:
            return None
        confidence = np.exp(np.array(self._logprobs, np.float32))
        return Scores(np.array(self._entropies, np.float32), confidence, np.zeros(len(confidence), np.intp))

    def _took(self, token: Emitted) -> None:
        tally, now = self.desk.tally, self._service.now()
        if self._logprobs:
            tally.between_tokens_seconds.add(now - self._latest)
        else:
            tally.first_token_seconds.add(now - self._arrived)
            self._first = now
        self._latest = now
        self._logprobs.append(token.logprob)
        self._entropies.append(token.entropy)
