"""What becomes of requests of a stream that are refused, are late, or meet a full daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from acclimate.runtime.client import AsyncClient, Client, ClientError
from acclimate.runtime.client.calling import cut_off
from acclimate.runtime.errors import ResourceExhausted
from acclimate.runtime.types import InferReply, InferRequest
from tests.runtime.rpc.loopback import MODEL, Loopback, samples, serving


class Moody:
    """A service that refuses or holds requests by their first value."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.refused: list[str] = []
        self.order: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def infer(self, request: InferRequest) -> InferReply:
        mood = float(next(iter(request.inputs.values()))[0, 0])
        self.order.append(mood)
        if mood == 100.0 and request.id not in self.refused:
            self.refused.append(request.id)
            raise ResourceExhausted("QUEUE_FULL", "full for a moment", retry_after_seconds=0.01)
        if mood == 200.0:
            raise ResourceExhausted("QUOTA_EXCEEDED", "full for good")
        if mood == 300.0:
            await asyncio.Event().wait()
        reply: InferReply = await self._inner.infer(request)
        return reply


@contextmanager
def moody() -> Iterator[tuple[Loopback, Moody]]:
    made: list[Moody] = []

    def wrap(service: Any) -> Any:
        made.append(Moody(service))
        return made[0]

    with serving(wrap=wrap) as up:
        yield up, made[0]


def at(mood: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    sample = samples(1)
    sample[0, 0] = mood
    return sample


def of(target: str, blocking: bool, moods: list[float], **chosen: Any) -> list[Any]:
    """Logits of what was answered, by either client."""

    async def main() -> list[Any]:
        async with AsyncClient(target) as client:

            async def source() -> AsyncIterator[Any]:
                for mood in moods:
                    yield at(mood)

            return [a.logits async for a in client.predict_stream(MODEL, source(), **chosen)]

    if not blocking:
        return asyncio.run(main())
    with Client(target) as client:
        return [a.logits for a in client.predict_stream(MODEL, map(at, moods), **chosen)]


BOTH = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])


@BOTH
def test_what_will_pass_is_asked_again_and_answered_at_its_place(blocking: bool) -> None:
    with moody() as (up, service):
        answers = of(up.target, blocking, [1.0, 100.0, 2.0], in_flight=3)
        assert len(answers) == 3
        assert service.order.count(100.0) == 2
        again = of(up.target, blocking, [1.0, 2.0], in_flight=1)
        np.testing.assert_array_equal([answers[0], answers[2]], again)


@BOTH
def test_what_is_refused_for_good_is_told_and_the_stream_goes_on(blocking: bool) -> None:
    with moody() as (up, service):
        told: list[tuple[int, str]] = []
        moods = [1.0, 200.0, 2.0, 200.0, 3.0]
        answers = of(
            up.target, blocking, moods, in_flight=2, refused=lambda place, error: told.append((place, error.reason))
        )
        assert (len(answers), told) == (3, [(1, "QUOTA_EXCEEDED"), (3, "QUOTA_EXCEEDED")])
        assert service.order == moods, "in the order of the arrays, and nothing twice"
        with pytest.raises(ClientError, match="full for good"):
            of(up.target, blocking, moods)


@BOTH
def test_what_is_not_answered_in_time_is_late_at_its_place(blocking: bool) -> None:
    with moody() as (up, _):
        told: list[tuple[int, str]] = []
        answers = of(
            up.target, blocking, [1.0, 300.0, 2.0], in_flight=1, timeout_seconds=2.0,
            refused=lambda place, error: told.append((place, error.code)),
        )  # fmt: skip
        assert told[0] == (1, "DEADLINE_EXCEEDED")
        assert len(answers) + len(told) == 3


@BOTH
def test_an_array_that_cannot_be_sent_is_told_like_one_that_is_refused(blocking: bool) -> None:
    with serving() as up:
        told: list[tuple[int, str]] = []

        def refused(place: int, error: ClientError) -> None:
            told.append((place, error.reason))

        inputs = [samples(1), np.array([["no"] * 6]), samples(1)]

        async def main() -> int:
            async with AsyncClient(up.target) as client:
                return len([a async for a in client.predict_stream(MODEL, inputs, refused=refused)])

        if blocking:
            with Client(up.target) as client:
                assert len(list(client.predict_stream(MODEL, inputs, refused=refused))) == 2
        else:
            assert asyncio.run(main()) == 2
        assert told == [(1, "DATATYPE_MISMATCH")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClientError("CANCELLED", "", "by the peer"), "UNAVAILABLE"),
        (ClientError("CANCELLED", "", "Channel closed!"), "CANCELLED"),
        (ClientError("INTERNAL", "", "Internal error from Core"), "UNAVAILABLE"),
        (ClientError("INTERNAL", "INTERNAL", "internal error; the daemon's log has the details"), "INTERNAL"),
    ],
)
def test_a_call_that_ended_with_its_connection_may_be_tried_again(error: ClientError, code: str) -> None:
    assert cut_off(error).code == code
