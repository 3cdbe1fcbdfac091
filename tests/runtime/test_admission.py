"""Admission by expected wait, on a clock that stands still until told: bursts pass, standing queues do not."""

from __future__ import annotations

import asyncio

import pytest

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.errors import ResourceExhausted
from acclimate.runtime.scheduler.admission import Admission, AdmissionLimits, Pass, Refused, step_aside

# What the engine takes for a request here, and the same as a rate.
EACH = 0.01


class Server:
    """One request after the other, each `EACH` seconds of a manual clock, behind an admission."""

    def __init__(self, patience: float = 0.25, weights: dict[str, float] | None = None) -> None:
        self.clock = ManualClock(100.0)
        limits = AdmissionLimits(patience, overload_wait=0.002)
        self.admission = Admission(limits, self.clock, lambda tenant: (weights or {}).get(tenant, 1.0))
        self.taken: list[Pass] = []
        self.waits: list[float] = []
        self._came: dict[Pass, float] = {}
        self._next = 0.0

    def send(self, tenant: str = "") -> bool:
        """One request; whether it was taken."""
        try:
            held = self.admission.enter(tenant)
        except ResourceExhausted as refused:
            assert refused.reason == "OVERLOADED"
            assert refused.retry_after_seconds is not None and refused.retry_after_seconds >= 0.1
            return False
        if not self.taken:
            self._next = self.clock.now + EACH
        self.taken.append(held)
        self._came[held] = self.clock.now
        return True

    def pass_time(self, seconds: float) -> None:
        """Answer what is due in that time, one by one."""
        until = self.clock.now + seconds
        while self.taken and self._next <= until:
            self.clock.now = self._next
            held = self.taken.pop(0)
            self.waits.append(self.clock.now - self._came.pop(held))
            self.admission.computed(EACH, 1)
            held.back()
            self._next += EACH
        self.clock.now = until

    def run(self, rate: float, seconds: float, tenant: str = "") -> tuple[int, int]:
        """Arrivals at even distances; how many were taken and how many refused."""
        taken = 0
        for _ in range(round(rate * seconds)):
            taken += self.send(tenant)
            self.pass_time(1.0 / rate)
        return taken, round(rate * seconds) - taken


def test_nothing_is_refused_while_it_keeps_up() -> None:
    server = Server()
    assert server.run(rate=0.95 / EACH, seconds=5.0) == (475, 0)
    assert not server.admission.overloaded
    assert max(server.waits) < 2 * EACH + 1e-9


def test_a_burst_of_clients_that_each_wait_for_their_answer_is_taken_whole() -> None:
    server = Server()
    server.run(rate=0.5 / EACH, seconds=1.0)
    assert all(server.send() for _ in range(64)), "64 that come at once"
    # Each sends its next when it has its answer: a queue that stands, and yet no more comes than is answered.
    for _ in range(500):
        server.pass_time(EACH)
        assert server.send()
    assert not server.admission.overloaded


def test_too_much_is_refused_and_what_is_taken_waits_about_one_other() -> None:
    server = Server()
    server.run(rate=0.5 / EACH, seconds=1.0)
    server.run(rate=5 / EACH, seconds=1.0)
    assert server.admission.overloaded
    server.pass_time(1.0)
    server.waits.clear()
    server.run(rate=5 / EACH, seconds=0.5)
    server.waits.clear()
    taken, refused = server.run(rate=5 / EACH, seconds=60.0)
    assert max(server.waits) <= 3 * EACH + 1e-9
    assert taken == pytest.approx(60.0 / EACH, rel=0.02), "as much is answered as could be"
    assert refused == pytest.approx(4 * 60.0 / EACH, rel=0.02)
    assert server.admission.snapshot().refused["overload"] >= refused


def test_it_recovers_with_the_first_window_that_it_keeps_up_in() -> None:
    server = Server()
    server.run(rate=5 / EACH, seconds=3.0)
    assert server.admission.overloaded
    assert server.send() or server.taken, "someone is being served even now"
    server.pass_time(0.2)
    taken, refused = server.run(rate=0.9 / EACH, seconds=2.0)
    assert refused == 0
    assert taken == 180
    assert not server.admission.overloaded


def test_beyond_patience_even_a_burst_is_refused() -> None:
    server = Server(patience=0.8)
    server.run(rate=0.5 / EACH, seconds=1.0)
    taken = sum(server.send() for _ in range(200))
    assert 64 < 0.8 / server.admission.snapshot().expected_wait * taken < 200
    assert 64 < taken < 200
    assert server.admission.snapshot().refused["patience"] == 200 - taken
    assert not server.admission.overloaded


def test_without_patience_nothing_is_refused_here() -> None:
    server = Server(patience=0.0)
    server.run(rate=0.5 / EACH, seconds=1.0)
    assert server.run(rate=5 / EACH, seconds=2.0) == (1000, 0)
    assert server.admission.stale_seconds is None
    assert not server.admission.overloaded


def test_a_tenant_that_floods_leaves_another_its_share() -> None:
    server = Server()
    server.run(rate=0.5 / EACH, seconds=1.0)
    server.run(rate=5 / EACH, seconds=2.0, tenant="loud")
    assert server.admission.overloaded
    quiet = [0, 0]
    for number in range(3000):
        server.send("loud")
        if number % 20 == 0:
            quiet[server.send("quiet")] += 1
        server.pass_time(EACH / 5)
    assert quiet[False] == 0, "a quarter of what it could have is never refused"
    assert quiet[True] == 150


def test_weights_divide_the_room() -> None:
    server = Server(patience=0.8, weights={"x": 3.0})
    server.run(rate=0.5 / EACH, seconds=1.0)
    while server.send("y"):
        pass
    alone = len(server.taken)
    more = 0
    while server.send("x"):
        more += 1
    assert more == pytest.approx(0.75 * alone, abs=3)


def test_what_steps_aside_is_not_what_others_wait_for() -> None:
    server = Server()
    held = server.admission.enter("")
    assert server.admission.snapshot().under_way == 1
    step_aside()
    assert server.admission.snapshot().under_way == 0
    held.back()
    held.back()
    assert server.admission.snapshot().under_way == 0, "given back once, however often it is said"


def test_a_refusal_before_the_message_is_the_same_for_everybody_for_a_moment() -> None:
    server = Server()
    assert server.admission.refuses("") is None
    server.run(rate=5 / EACH, seconds=2.0)
    while server.admission.refuses("") is None:
        server.send()
    first = server.admission.refuses("")
    assert first is not None and first.reason == "OVERLOADED"
    assert server.admission.refuses("") is first
    server.clock.advance(0.03)
    assert server.admission.refuses("") is not first


def test_streams_wait_for_room_and_are_let_in_one_after_the_other() -> None:
    async def scenario() -> None:
        server = Server()
        server.run(rate=5 / EACH, seconds=2.0)
        while server.send():
            pass
        before = server.admission.snapshot().under_way
        waiting = [asyncio.create_task(server.admission.wait("")) for _ in range(3)]
        await asyncio.sleep(0)
        assert server.admission.snapshot().under_way == before, "they wait"
        waiting[0].cancel()
        server.pass_time(60.0)
        assert not server.taken
        held = await asyncio.wait_for(asyncio.gather(*waiting[1:]), 30)
        assert server.admission.snapshot().under_way == 2, "one that gave up holds nothing"
        for one in held:
            one.back()

    asyncio.run(scenario())


def test_what_waited_long_in_the_queue_is_stale_only_while_too_much_comes() -> None:
    server = Server()
    server.run(rate=0.5 / EACH, seconds=1.0)
    assert server.admission.stale_seconds is None
    server.run(rate=5 / EACH, seconds=2.0)
    assert server.admission.stale_seconds == pytest.approx(4 * 1.5 * EACH)
    assert server.admission.given_up().reason == "OVERLOADED"
    assert server.admission.snapshot().refused[Refused.STALE] == 1


def test_giving_a_queue_up_is_not_keeping_up() -> None:
    server = Server()
    server.run(rate=0.5 / EACH, seconds=1.0)
    while server.send():
        pass
    server.run(rate=5 / EACH, seconds=0.5)
    assert server.admission.overloaded
    # All at once, as the queue does; as answers, they would outweigh what came in two windows.
    for held in server.taken[2:]:
        assert server.admission.given_up().reason == "OVERLOADED"
        held.back()
    del server.taken[2:]
    for _ in range(100):
        server.run(rate=5 / EACH, seconds=0.02)
        assert server.admission.overloaded
