"""Which answers the event loop's thread gives by itself: short ones, of requests that come one at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.scheduler.shortness import CALLS, LONE, LONGEST_SECONDS, LOOKS, SPELL, Shortness
from acclimate.runtime.service import Service
from tests.runtime.hooked import Hooked
from tests.runtime.serving import config, drifted, opened, predict, serving


class Watched:
    """An engine that says which thread asked for how many rows, and takes as long as it is told."""

    def __init__(self) -> None:
        self.clock = ManualClock(100.0)
        self.seconds = self.of_a_row = 0.0
        self.calls: list[tuple[str, int]] = []
        self.engine = Hooked(reference_engine(), frozen=self._asked, predict=self._asked)

    def _asked(self, inputs: np.ndarray) -> None:
        self.calls.append(("loop" if threading.current_thread() is threading.main_thread() else "worker", len(inputs)))
        if len(inputs) == 7:
            raise RuntimeError("no memory")
        self.clock.advance(self.seconds + self.of_a_row * len(inputs))

    @asynccontextmanager
    async def serving(self, mode: str = "background") -> AsyncIterator[Service]:
        async with serving(config(mode), self.engine, self.clock) as service:
            yield service

    async def known(self, service: Service) -> None:
        """Let it be seen that calls are short and come one at a time; the first on the spot has just been."""
        while not self.calls or self.calls[-1][0] == "worker":
            await one_by_one(service, 1)
            assert len(self.calls) <= CALLS + LONE
        self.calls.clear()


async def one_by_one(service: Service, requests: int, rows: int = 1) -> None:
    for number in range(requests):
        await predict(service, drifted(number, rows))
        # As an rpc does, whose reply has to be sent before the client asks again.
        await asyncio.sleep(0)


def test_requests_one_at_a_time_are_answered_on_the_spot_once_answers_are_known_to_be_short() -> None:
    async def scenario() -> None:
        watched = Watched()
        async with watched.serving() as service:
            await one_by_one(service, CALLS)
            assert {thread for thread, _ in watched.calls} == {"worker"}
            await watched.known(service)
            await one_by_one(service, 5, rows=3)
            assert watched.calls == [("loop", 3)] * 5
            given = await predict(service, drifted(1, 3))
            np.testing.assert_array_equal(given.outputs["logits"], reference_engine().frozen(drifted(1, 3)))

    asyncio.run(scenario())


def test_requests_that_come_together_are_one_batch_of_the_worker() -> None:
    async def scenario() -> None:
        watched = Watched()
        async with watched.serving() as service:
            await watched.known(service)
            await asyncio.gather(*(predict(service, drifted(number)) for number in range(5)))
            # The first of them was alone when it came.
            assert watched.calls == [("loop", 1), ("worker", 4)]
            watched.calls.clear()
            await one_by_one(service, LONE - 1)
            assert {thread for thread, _ in watched.calls} == {"worker"}
            await one_by_one(service, 1)
            assert watched.calls[-1] == ("loop", 1)

    asyncio.run(scenario())


def test_now_and_then_the_worker_answers_so_that_load_is_seen() -> None:
    async def scenario() -> None:
        watched = Watched()
        async with watched.serving() as service:
            await watched.known(service)
            await one_by_one(service, 2 * (SPELL + LOOKS))
            assert [thread for thread, _ in watched.calls].count("worker") == 2 * LOOKS

    asyncio.run(scenario())


def test_an_answer_that_took_long_is_the_last_on_the_spot_until_as_many_were_short_again() -> None:
    async def scenario() -> None:
        watched = Watched()
        async with watched.serving() as service:
            await watched.known(service)
            watched.seconds = 2 * LONGEST_SECONDS
            await one_by_one(service, 2)
            watched.seconds = 0.0
            await one_by_one(service, CALLS)
            assert watched.calls == [("loop", 1), *[("worker", 1)] * CALLS, ("worker", 1)]

    asyncio.run(scenario())


def test_a_request_of_many_rows_is_not_taken_for_a_short_one() -> None:
    async def scenario() -> None:
        watched = Watched()
        watched.of_a_row = LONGEST_SECONDS / 4
        async with watched.serving() as service:
            await watched.known(service)
            await one_by_one(service, 1, rows=3)
            await one_by_one(service, 1, rows=5)
            assert watched.calls == [("loop", 3), ("worker", 5)]

    asyncio.run(scenario())


def test_in_synchronous_mode_the_worker_answers() -> None:
    async def scenario() -> None:
        watched = Watched()
        async with watched.serving("synchronous") as service:
            await one_by_one(service, 2 * (CALLS + LONE))
            assert {thread for thread, _ in watched.calls} == {"worker"}

    asyncio.run(scenario())


def test_an_engine_that_fails_on_the_spot_costs_that_request_only() -> None:
    async def scenario() -> None:
        watched = Watched()
        async with watched.serving() as service:
            await watched.known(service)
            with pytest.raises(RuntimeError, match="no memory"):
                await predict(service, drifted(1, 7))
            await asyncio.sleep(0)
            await one_by_one(service, 2)
            assert watched.calls == [("loop", 7), ("loop", 1), ("loop", 1)]

    asyncio.run(scenario())


def test_sessions_learn_from_answers_given_on_the_spot() -> None:
    async def scenario() -> None:
        watched = Watched()
        async with watched.serving() as service:
            await watched.known(service)
            await opened(service, "s", "norm")
            reply = await predict(service, drifted(1, 3), "s")
            assert watched.calls == [("loop", 3)]
            assert reply.parameters["acclimate_outcome"] in ("gathered", "queued")

    asyncio.run(scenario())


def test_engines_are_known_each_by_itself_and_forgotten_with_their_model() -> None:
    seen, one, other = Shortness(), reference_engine(), reference_engine()
    for _ in range(CALLS):
        assert not seen.expected(one, 1)
        seen.note(one, 1, LONGEST_SECONDS / 2)
    assert seen.expected(one, 1)
    assert not seen.expected(one, 4)
    assert not seen.expected(other, 1)
    assert len(seen._seen) == 1
    del one
    assert not seen._seen
