"""Timing contestants side by side on a machine that may be busy with other things."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Call = Callable[[], object]
# Worker threads spin for about 50 ms after a call.
PAUSE_SECONDS = 0.3
# A timed block repeats a call until it has taken about this long, so that a short call is not one tick of the clock.
BLOCK_SECONDS = 0.05
FEWEST_ROUNDS = 3


def measured(contestants: Mapping[str, Call], rounds: int, seconds: float, *, wall: bool) -> dict[str, float]:
    """Milliseconds of a call of each contestant; they take turns, each after a pause.

    Without `wall` it is the least processor time of this process, which other processes hardly disturb and which is
    fair to calls of one thread only; with `wall` the median of wall times.

    Args:
        contestants: what to call, by name.
        rounds: timed blocks of each, at most.
        seconds: time that all rounds may take; there are at least three however long they take.
        wall: whether to measure wall time.
    """
    clock = time.perf_counter if wall else time.process_time
    repeats = {what: _repeats(call) for what, call in contestants.items()}
    times: dict[str, list[float]] = {what: [] for what in contestants}
    begun = time.monotonic()
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and time.monotonic() - begun > seconds:
            break
        for what, call in contestants.items():
            time.sleep(PAUSE_SECONDS)
            if repeats[what] > 1:
                call()
            start = clock()
            for _ in range(repeats[what]):
                call()
            times[what].append((clock() - start) / repeats[what])
    of = median if wall else min
    return {what: 1e3 * of(values) for what, values in times.items()}


def _repeats(call: Call) -> int:
    """How often a block calls, after a first call or two to warm up."""
    call()
    start = time.perf_counter()
    call()
    return max(1, round(BLOCK_SECONDS / (time.perf_counter() - start)))
