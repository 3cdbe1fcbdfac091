"""One text while it is written: its tokens as they come, and what it has cost so far."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace

import numpy as np

from acclimate.adapters.accuracy import Scores
from acclimate.adapters.language import Ids
from acclimate.adapters.layout import Float
from acclimate.runtime.engines.language import Emitted, Sampling
from acclimate.runtime.errors import AcclimateError
from acclimate.runtime.generation.desk import Desk
from acclimate.runtime.generation.searching import drawn
from acclimate.runtime.generation.types import (
    Drawing,
    Ending,
    GeneratedToken,
    GenerateReply,
    LearnOutcome,
    Strategy,
    Usage,
)
from acclimate.runtime.language.jobs import LearningBudget
from acclimate.runtime.sessions.session import Session


@dataclass(frozen=True, slots=True)
class Subject:
    """Who writes a text, and what about.

    Attributes:
        session: None: the base.
        version: of the parameters that write it.
        prompt: `[t]`.
        arrived: when it was asked for, in seconds of the service's clock.
        budget: what its tokens may cost, once it has its place.
        lesson: what was learnt before it.
    """

    session: Session | None
    version: int
    prompt: Ids
    arrived: float
    budget: LearningBudget
    lesson: LearnOutcome | None


class Text:
    """Touched on the event loop's thread only.

    Args:
        desk: of the model that writes it.
        subject: see there.
        ended: told of the text and how it ended.
        now: seconds, on the service's clock.
    """

    def __init__(
        self, desk: Desk, subject: Subject, ended: Callable[[Text, str], None], now: Callable[[], float]
    ) -> None:
        self.desk, self.subject = desk, subject
        self._ended, self._now = ended, now
        self._began = self._latest = self._first = 0.0
        self._others = 0
        self._rationed = self._cut = self._searches = False
        self._logprobs: list[float] = []
        self._entropies: list[float] = []

    @property
    def generated(self) -> int:
        """Tokens so far, those of texts that were not chosen among them."""
        return len(self._logprobs) + self._others

    def written(self, sampling: Sampling, theta: Float, drawing: Drawing) -> AsyncGenerator[Emitted | None, None]:
        """Its tokens, under `theta [P]`, no more than its budget has."""
        self._searches = drawing.strategy is not Strategy.NONE
        if (bound := self.subject.budget.tokens) is not None:
            most = max(bound // (drawing.samples if self._searches else 1), 1)
            self._rationed = most < sampling.max_tokens
            sampling = replace(sampling, max_tokens=min(most, sampling.max_tokens))
        if self._searches:
            return self._searched(sampling, theta, drawing)
        return self.desk.writer.write(self.subject.prompt, theta, sampling)

    async def replies(self, tokens: AsyncIterator[Emitted | None]) -> AsyncGenerator[GenerateReply, None]:
        """Messages of the text; however it ends, that is counted."""
        ending, version = "cancelled", self.subject.version
        try:
            async for token in tokens:
                if token is None:
                    self._began = self._now()
                    yield GenerateReply(version, lesson=self.subject.lesson)
                    continue
                self._took(token)
                finish = self._finish(token)
                ending = finish or ending
                shown = GeneratedToken(token.token, token.text, token.logprob, token.entropy)
                yield GenerateReply(version, shown, finish, self.usage() if finish else None)
                if finish:
                    return
        except AcclimateError as error:
            ending = error.code.value
            raise
        finally:
            self._ended(self, ending)

    def usage(self) -> Usage:
        """What it has cost so far."""
        subject, lesson = self.subject, self.subject.lesson
        first, total = ((at - subject.arrived) * 1e3 for at in (self._first, self._latest))
        learnt = (0, 0.0) if lesson is None else (lesson.tokens, lesson.cost_ms)
        return Usage(len(subject.prompt), self.generated, first, total, *learnt)

    def scores(self) -> Scores | None:
        """Of its tokens, for the session's telemetry; None before the first."""
        if not self._logprobs:
            return None
        confidence = np.exp(np.array(self._logprobs, np.float32))
        return Scores(np.array(self._entropies, np.float32), confidence, np.zeros(len(confidence), np.intp))

    async def _searched(
        self, sampling: Sampling, theta: Float, drawing: Drawing
    ) -> AsyncGenerator[Emitted | None, None]:
        """The tokens of the text that a search chooses, once it has."""
        yield None
        begun = list[float]()

        def late() -> bool:
            begun.append(self._now())
            return self._late(begun[0])

        chosen, count = await drawn(
            self.desk.writer, self.subject.prompt, theta, sampling, drawing.samples, drawing.strategy, late
        )
        self._others = count - len(chosen)
        for token in chosen[:-1]:
            yield token
        self._cut = not chosen[-1].finish
        yield chosen[-1]

    def _finish(self, token: Emitted) -> Ending:
        """Why the text ends with this token, if it does."""
        if token.finish:
            return "budget" if self._rationed and token.finish == "length" else token.finish
        late = self._cut if self._searches else self._late(self._began)
        return "budget" if late else ""

    def _late(self, began: float) -> bool:
        """Whether the milliseconds of its budget have passed since it had its place."""
        bound = self.subject.budget.milliseconds
        return bound is not None and 1e3 * (self._now() - began) >= bound

    def _took(self, token: Emitted) -> None:
        tally, now = self.desk.tally, self._now()
        if self._logprobs:
            tally.between_tokens_seconds.add(now - self._latest)
        else:
            lesson = self.subject.lesson
            tally.first_token_seconds.add(now - self.subject.arrived - (lesson.elapsed_ms / 1e3 if lesson else 0.0))
            self._first = now
        self._latest = now
        self._logprobs.append(token.logprob)
        self._entropies.append(token.entropy)
