"""Texts and lessons as iterators: tokens while they are written, progress while a session learns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

from acclimate.runtime.client import language
from acclimate.runtime.client.calling import AsyncCalls, Calls
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.replies import AsyncReplies, Replies
from acclimate.runtime.generation.types import (
    Ending,
    GeneratedToken,
    GenerateReply,
    GenerateRequest,
    LearnOutcome,
    LearnProgress,
    LearnRequest,
    Usage,
)


class _Open:
    """What is told by a rpc that streams, and ends it when closed."""

    _replies: Replies[Any]

    def close(self) -> None:
        """End it, if it has not ended."""
        self._replies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _AsyncOpen:
    """The same, awaited."""

    _replies: AsyncReplies[Any]

    async def close(self) -> None:
        """End it, if it has not ended."""
        self._replies.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Text:
    """What both kinds of text know of themselves."""

    def __init__(self) -> None:
        self.version = 0
        """Of the session's parameters that write it, once it has begun."""
        self.text = ""
        """What is written so far."""
        self.finish: Ending = ""
        """Why it ended; empty: it goes on."""
        self.lesson: LearnOutcome | None = None
        """How the lesson before it has ended, once it has begun, if there was one."""
        self.usage: Usage | None = None
        """What it has cost, once it has ended."""

    def _told(self, reply: GenerateReply) -> GeneratedToken | None:
        self.version, self.finish = reply.version, reply.finish
        self.usage, self.lesson = reply.usage or self.usage, reply.lesson or self.lesson
        self.text += "" if reply.token is None else reply.token.text
        return reply.token


class Generation(_Text, _Open):
    """An iterator over the tokens of a text; closing it ends the text. Raises `ClientError`."""

    def __init__(self, calls: Calls, request: GenerateRequest, timeout_seconds: float | None) -> None:
        super().__init__()
        self._replies = Replies(calls, language.generate(request), timeout_seconds)

    def __iter__(self) -> Iterator[GeneratedToken]:
        return self

    def __next__(self) -> GeneratedToken:
        while (token := self._told(next(self._replies))) is None:
            pass
        return token

    def read(self) -> str:
        """The whole text, once it is written."""
        for _ in self:
            pass
        return self.text


class AsyncGeneration(_Text, _AsyncOpen):
    """The same as an asynchronous iterator."""

    def __init__(self, calls: AsyncCalls, request: GenerateRequest, timeout_seconds: float | None) -> None:
        super().__init__()
        self._replies = AsyncReplies(calls, language.generate(request), timeout_seconds)

    def __aiter__(self) -> AsyncIterator[GeneratedToken]:
        return self

    async def __anext__(self) -> GeneratedToken:
        while (token := self._told(await anext(self._replies))) is None:
            pass
        return token

    async def read(self) -> str:
        """The whole text, once it is written."""
        async for _ in self:
            pass
        return self.text


class Lesson(_Open):
    """An iterator over a lesson's progress; closing it ends the lesson, and nothing is committed then."""

    def __init__(self, calls: Calls, request: LearnRequest, timeout_seconds: float | None) -> None:
        self._replies: Replies[LearnProgress | LearnOutcome] = Replies(calls, language.learn(request), timeout_seconds)
        self.outcome: LearnOutcome | None = None
        """How it ended, once it has."""

    def __iter__(self) -> Iterator[LearnProgress]:
        return self

    def __next__(self) -> LearnProgress:
        update = next(self._replies)
        if isinstance(update, LearnOutcome):
            self.outcome = update
            return next(self)
        return update

    def wait(self) -> LearnOutcome:
        """How the lesson ended, once it has."""
        for _ in self:
            pass
        return _ended(self.outcome)


class AsyncLesson(_AsyncOpen):
    """The same as an asynchronous iterator."""

    def __init__(self, calls: AsyncCalls, request: LearnRequest, timeout_seconds: float | None) -> None:
        self._replies: AsyncReplies[LearnProgress | LearnOutcome] = AsyncReplies(
            calls, language.learn(request), timeout_seconds
        )
        self.outcome: LearnOutcome | None = None

    def __aiter__(self) -> AsyncIterator[LearnProgress]:
        return self

    async def __anext__(self) -> LearnProgress:
        update = await anext(self._replies)
        if isinstance(update, LearnOutcome):
            self.outcome = update
            return await anext(self)
        return update

    async def wait(self) -> LearnOutcome:
        """How the lesson ended, once it has."""
        async for _ in self:
            pass
        return _ended(self.outcome)


def _ended(outcome: LearnOutcome | None) -> LearnOutcome:
    if outcome is None:
        raise ClientError("CANCELLED", "", "the lesson was closed before it had ended")
    return outcome
