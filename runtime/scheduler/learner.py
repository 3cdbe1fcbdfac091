"""Adaptation steps: who is due, what they may spend, one thread that computes, and the commit.

Steps are computed on copies of the sessions' rows. The commit happens on the event loop's thread and only for
sessions that were not reset or closed meanwhile, so a step either changes a session as a whole or not at all.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from acclimate.adapters import budget
from acclimate.adapters.bank import State
from acclimate.adapters.fields import STATS, THETA
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.step import Asked, Batch, StepResult, adaptation_step
from acclimate.runtime.clock import Clock
from acclimate.runtime.engines.base import Folded
from acclimate.runtime.scheduler import costs
from acclimate.runtime.scheduler.drive import Slicing, run_step
from acclimate.runtime.sessions.cohort import Cohort
from acclimate.runtime.sessions.session import Session

log = structlog.stdlib.get_logger("acclimate.learner")

NICENESS = 10
CHANGED = (Outcome.APPLIED, Outcome.SKIPPED_NOT_SELECTED)


@dataclass(frozen=True, slots=True)
class LearnerLimits:
    """Bounds of a step.

    Attributes:
        max_step_rows: samples of all its sessions together.
        slice_rows: rows per engine call where they are independent.
        patience: seconds a slice waits for waiting predictions before it runs all the same.
        sample_period: synchronous mode only: seconds of budget refill per sample a session was sent, in place
            of the clock, so that a replay spends as the first run did. None: the clock.
    """

    max_step_rows: int
    slice_rows: int
    patience: float
    sample_period: float | None = None


@dataclass(frozen=True, slots=True)
class StepReport:
    """One session's part in a step, for its account and for whoever watches. `ms` is its share of the cost."""

    session: Session
    outcome: Outcome
    version_before: int
    restored: bool
    samples: int
    selected: int
    forward_rows: float
    ms: float


@dataclass(frozen=True, slots=True)
class _Computed:
    result: StepResult
    folded: list[Folded]
    ms: float


class Learner:
    """The queue of due sessions and the worker that adapts them.

    Args:
        limits: bounds of a step.
        clock: the time.
        process_budget: milliseconds per second and milliseconds at most for all sessions together, or None.
        idle: set while no prediction waits.
        report: called for every session of every step, after the commit.
    """

    def __init__(
        self,
        limits: LearnerLimits,
        clock: Clock,
        process_budget: tuple[float, float] | None,
        idle: threading.Event,
        report: Callable[[StepReport], None],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._report = report
        self._slicing = Slicing(limits.slice_rows, lambda: _wait(idle, limits.patience))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="learn", initializer=_lower_priority)
        self._due: dict[tuple[str, str], Session] = {}
        self._costs: dict[tuple[str, str], costs.StepCost] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self._process: State | None = None
        if process_budget is not None:
            fields = budget.template(*process_budget, clock.monotonic())
            self._process = {name: value[np.newaxis] for name, value in fields.items()}

    def notify(self, session: Session) -> None:
        """The session has gathered samples; step it when it is due and its turn comes."""
        if session.due and session.open:
            # The key may still name a session that was closed since; this one takes its place.
            self._due[session.key] = session
            self._wake.set()

    async def run(self) -> None:
        """Step due sessions until `close`."""
        while not self._closing:
            self._due = {key: s for key, s in self._due.items() if s.due and s.open}
            if not self._due:
                self._wake.clear()
                await self._wake.wait()
                continue
            mates = self._pick()
            await self.step(mates)
            for session in mates:
                self.notify(session)

    def close(self) -> None:
        """Let the step under way finish, begin no other."""
        self._closing = True
        self._wake.set()

    def release(self) -> None:
        """Give the worker thread up, once no step will begin any more."""
        self._pool.shutdown(wait=False)

    def _pick(self) -> list[Session]:
        first = next(iter(self._due.values()))
        room = max(1, self._limits.max_step_rows // first.cohort.recipe.batch_rows)
        mates = [s for s in self._due.values() if s.cohort is first.cohort][:room]
        for session in mates:
            del self._due[session.key]
        return mates

    async def step(self, sessions: list[Session]) -> None:
        """One step over sessions of one cohort, each due: take their samples, pay, compute, commit, report."""
        cohort = sessions[0].cohort
        rows = cohort.recipe.batch_rows
        samples = {session.key: session.buffer.take(rows) for session in sessions}
        estimate = self._cost(cohort).estimate(rows)
        paying = [s for s in sessions if self._afford(s, estimate)]
        for session in sessions:
            if session not in paying:
                self._report(_undone(session, Outcome.SKIPPED_BUDGET, rows, estimate))
        if not paying:
            return
        state = cohort.bank.gather([s.row for s in paying])
        epochs = [s.epoch for s in paying]
        batch = Batch(np.concatenate([samples[s.key] for s in paying]), np.repeat(np.arange(len(paying)), rows))
        for session in paying:
            session.stepping = True
        try:
            computed = await asyncio.get_running_loop().run_in_executor(
                self._pool, compute_step, cohort, state, batch, self._slicing
            )
        except Exception:
            # It costs these samples; the sessions are as they were, and the next step may succeed.
            log.exception("adaptation step failed", model=cohort.key[0], recipe=cohort.recipe.name)
            for session in paying:
                self._report(_undone(session, Outcome.SKIPPED_ENGINE_ERROR, rows, 0.0))
            return
        finally:
            for session in paying:
                session.stepping = False
        self._commit(paying, epochs, computed, rows)

    def _commit(self, sessions: list[Session], epochs: list[int], computed: _Computed, rows: int) -> None:
        result, cohort = computed.result, sessions[0].cohort
        share = self._charge(cohort, computed, len(sessions), rows)
        for i, (session, epoch) in enumerate(zip(sessions, epochs, strict=True)):
            before = session.version
            outcome, restored = Outcome(int(result.outcome[i])), bool(result.restore[i])
            if session.epoch != epoch:
                outcome, restored = Outcome.SKIPPED_STALE, False
            if session.open:
                # A reset forgets what was learnt, not what it cost.
                one = cohort.bank.gather([session.row]) if outcome is Outcome.SKIPPED_STALE else _one(result.state, i)
                paid = budget.charge(one, np.array([share]), self.budget_time(session))
                cohort.bank.scatter([session.row], one | paid)
            if restored:
                session.restore()
            elif outcome in CHANGED:
                session.commit(computed.folded[i], float(result.distance[i]))
            self._report(
                StepReport(
                    session=session,
                    outcome=outcome,
                    version_before=before,
                    restored=restored,
                    samples=rows,
                    selected=int(result.selected[i]),
                    forward_rows=(result.asked.forward + result.asked.quantized) / len(sessions),
                    ms=share,
                )
            )

    def _cost(self, cohort: Cohort) -> costs.StepCost:
        return self._costs.get(cohort.key[:2]) or costs.calibrated(cohort.engine.manifest.cost)

    def _charge(self, cohort: Cohort, computed: _Computed, sessions: int, rows: int) -> float:
        """Milliseconds that each session of the step pays."""
        result, cost = computed.result, cohort.engine.manifest.cost
        if self._limits.sample_period is not None:
            return costs.charged(cost, result.asked) / sessions
        self._costs[cohort.key[:2]] = self._cost(cohort).observed(sessions * rows, computed.ms)
        if self._process is not None:
            self._process |= budget.charge(self._process, np.array([computed.ms]), self._clock.monotonic())
        return computed.ms / sessions

    def _afford(self, session: Session, estimate: float) -> bool:
        own = session.cohort.bank.gather([session.row])
        if not budget.affordable(own, estimate, self.budget_time(session))[0]:
            return False
        if self._process is None or self._limits.sample_period is not None:
            return True
        return bool(budget.affordable(self._process, estimate, self._clock.monotonic())[0])

    def budget_time(self, session: Session) -> float:
        """The time, in seconds, at which the session's bucket stands."""
        period = self._limits.sample_period
        return self._clock.monotonic() if period is None else session.account.samples * period


def compute_step(cohort: Cohort, state: State, batch: Batch, slicing: Slicing) -> _Computed:
    """Run a step and fold what will serve. If one session's numbers overflow, each session steps by itself.

    A product with a NaN is a NaN even where the weight is zero, so a batch shared with a diverged session
    proves nothing about the others.
    """
    started = time.perf_counter()
    engine, recipe = cohort.engine, cohort.recipe
    result = run_step(adaptation_step(recipe, engine.source, state, batch), engine, slicing)
    if len(result.outcome) > 1 and (result.outcome == Outcome.ROLLED_BACK_NONFINITE).any():
        result = _merge([
            run_step(adaptation_step(recipe, engine.source, *_only(state, batch, i)), engine, slicing)
            for i in range(len(result.outcome))
        ])  # fmt: skip
    folded = [engine.fold(theta, stats) for theta, stats in zip(result.state[THETA], result.state[STATS], strict=True)]
    return _Computed(result, folded, (time.perf_counter() - started) * 1e3)


def _only(state: State, batch: Batch, session: int) -> tuple[State, Batch]:
    keep = np.flatnonzero(batch.group == session)
    labels = None if batch.labels is None else batch.labels[keep]
    return _one(state, session), Batch(batch.inputs[keep], np.zeros(len(keep), np.intp), labels)


def _one(state: State, session: int) -> State:
    return {name: value[session : session + 1] for name, value in state.items()}


def _merge(results: list[StepResult]) -> StepResult:
    def join(pick: Callable[[StepResult], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([pick(result) for result in results])

    return StepResult(
        state={name: np.concatenate([r.state[name] for r in results]) for name in results[0].state},
        outcome=join(lambda r: r.outcome),
        restore=join(lambda r: r.restore),
        logits=join(lambda r: r.logits),
        loss=join(lambda r: r.loss),
        selected=join(lambda r: r.selected),
        distance=join(lambda r: r.distance),
        asked=Asked(
            sum(r.asked.forward for r in results),
            sum(r.asked.backward for r in results),
            sum(r.asked.quantized for r in results),
        ),
    )


def _undone(session: Session, outcome: Outcome, rows: int, ms: float) -> StepReport:
    return StepReport(session, outcome, session.version, False, rows, 0, 0.0, ms)


def _wait(idle: threading.Event, patience: float) -> None:
    idle.wait(patience)


def _lower_priority() -> None:
    """Let predictions go first where the two share a core; Linux schedules threads one by one."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
