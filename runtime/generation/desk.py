"""What one served language model is made of: threads that read, write and score, and its counters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from acclimate.runtime.config_generation import Generation
from acclimate.runtime.errors import ResourceExhausted, Unavailable
from acclimate.runtime.generation.model import LanguageModel
from acclimate.runtime.generation.tally import LanguageTally
from acclimate.runtime.generation.types import LanguageSnapshot
from acclimate.runtime.generation.writing import RETRY_SECONDS, Writer

T = TypeVar("T")


class Desk:
    """One model's. Tokens are made on a thread of their own, so that a long prompt holds nobody up."""

    def __init__(self, model: LanguageModel, limits: Generation, slots: int) -> None:
        self.model, self.engine, self.limits = model, model.engine, limits
        self.writer = Writer(model.engine, slots, limits.max_queue)
        self.tally = LanguageTally()
        self.lessons_waiting = self.learning = 0
        self._scores = 0
        self._closed = False
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="score")

    async def read(self, work: Callable[[], T]) -> T:
        """Make tokens of something, on the thread for that."""
        self._refuse_closed()
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    async def score(self, work: Callable[[], T]) -> T:
        """Score something, on the thread for that.

        Raises:
            ResourceExhausted: too many wait. Unavailable: the daemon drains.
        """
        self._refuse_closed()
        if self._scores >= self.limits.score_queue:
            raise ResourceExhausted(
                "QUEUE_FULL",
                f"{self._scores} requests wait to be scored, as many as generation.score_queue allows",
                retry_after_seconds=RETRY_SECONDS,
                limit=self.limits.score_queue,
            )
        self._scores += 1
        future = asyncio.get_running_loop().run_in_executor(self._scoring, work)
        future.add_done_callback(self._scored)
        return await future

    def close(self) -> None:
        """Refuse what is new."""
        self._closed = True
        self.writer.close()

    def release(self) -> None:
        """Cut off what is still written; what is scored is finished."""
        self.close()
        self.writer.release()
        for pool in (self._reading, self._scoring):
            pool.shutdown(cancel_futures=True)

    def snapshot(self) -> LanguageSnapshot:
        """Figures; safe from any thread."""
        tally, writer = self.tally, self.writer
        return LanguageSnapshot(
            model=self.model.manifest.name,
            texts=dict(tally.texts),
            prompt_tokens=tally.prompt_tokens,
            generated_tokens=tally.generated_tokens,
            learned_tokens=tally.learned_tokens,
            scored_tokens=tally.scored_tokens,
            first_token_seconds=tally.first_token_seconds.frozen(),
            between_tokens_seconds=tally.between_tokens_seconds.frozen(),
            lessons=dict(tally.lessons),
            lesson_seconds=tally.lesson_seconds.frozen(),
            slots=writer.slots,
            slots_in_use=writer.in_use,
            texts_waiting=writer.waiting,
            lessons_waiting=self.lessons_waiting,
            learning=self.learning,
        )

    def _scored(self, _: object) -> None:
        self._scores -= 1

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable("DRAINING", "the daemon is draining; send the request to another one")
