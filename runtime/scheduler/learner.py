"""Adaptation steps: who is due, what they may spend, one thread that computes, and the commit.

Steps are computed on copies of the sessions' rows. The commit happens on the event loop's thread and only for
sessions that were not reset or closed meanwhile, so a step either changes a session as a whole or not at all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from acclimate.adapters import budget
from acclimate.adapters.bank import State
from acclimate.adapters.layout import Float
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.restoration.ring import SERVING
from acclimate.adapters.step import Batch, StepResult
from acclimate.adapters.watch import Drift
from acclimate.runtime.clock import Clock
from acclimate.runtime.scheduler import costs
from acclimate.runtime.scheduler.around import Around, unobserved
from acclimate.runtime.scheduler.compute import CHANGED, Computed, compute_step, lower_priority, one_session
from acclimate.runtime.scheduler.deadline import OutOfTime, until
from acclimate.runtime.scheduler.drive import Slicing, waiting
from acclimate.runtime.scheduler.limits import LearnerLimits
from acclimate.runtime.scheduler.report import StepReport, undone
from acclimate.runtime.scheduler.room import Room, unbounded
from acclimate.runtime.scheduler.shared import SharedBudgets
from acclimate.runtime.sessions.cohort import Cohort
from acclimate.runtime.sessions.gathering import UNKNOWN, Gathered
from acclimate.runtime.sessions.session import Session, SessionKey
from acclimate.runtime.sessions.terms import Terms

log = structlog.stdlib.get_logger("acclimate.learner")

# What a step costs, these sessions have no part in.
RESTED = (Outcome.SKIPPED_RESTING, Outcome.SKIPPED_BUDGET)


class Learner:
    """The queue of due sessions and the worker that adapts them.

    Args:
        limits: bounds of a step.
        clock: the time.
        shared: budgets of the process and of tenants, or None where only sessions' own count.
        idle: set while no prediction waits.
        report: called for every session of every step, after the commit.
        room: awaited before every commit.
        around: what observes steps.
    """

    def __init__(
        self,
        limits: LearnerLimits,
        clock: Clock,
        shared: SharedBudgets | None,
        idle: threading.Event,
        report: Callable[[StepReport], None],
        room: Room = unbounded,
        around: Around = unobserved,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._report = report
        self._room = room
        self._around = around
        self._slicing = Slicing(limits.slice_rows, waiting(idle, limits.patience))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="learn", initializer=lower_priority)
        self._due: dict[SessionKey, Session] = {}
        self._costs: dict[tuple[str, str], costs.StepCost] = {}
        self._wake = asyncio.Event()
        self._one_answer = asyncio.Lock()
        self._closing = False
        self._shared = shared

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

    def forget(self, model: str) -> None:
        """Another bundle serves the model: what its steps cost is unknown again."""
        self._costs = {key: cost for key, cost in self._costs.items() if key[0] != model}

    def _pick(self) -> list[Session]:
        first = next(iter(self._due.values()))
        room = max(1, min(self._limits.max_step_rows // first.cohort.recipe.batch_rows, self._limits.max_commits))
        mates = [s for s in self._due.values() if s.cohort is first.cohort][:room]
        for session in mates:
            del self._due[session.key]
        return mates

    async def step(self, sessions: list[Session]) -> bool:
        """One step over sessions of one cohort, each due: take their samples, pay, compute, commit, report.

        False if a reply waits for it while the store fails: their samples are left where they are.
        """
        if (replying := self._limits.sample_period is not None) and not await self._room(len(sessions), True):
            return False
        rows = sessions[0].cohort.recipe.batch_rows
        gathered = {session.key: session.buffer.take(rows) for session in sessions}
        # A recipe with a pace looks at what it gathers, and may rest; only then it is known who has to pay.
        paying = sessions if sessions[0].cohort.recipe.pace is not None else self._paying(sessions, rows)
        if paying:
            await self._take_step(paying, [gathered[session.key] for session in paying], replying=replying)
        return True

    async def answer(
        self, session: Session, inputs: NDArray[Any], first: Float, deadline: float | None, terms: Terms
    ) -> Float:
        """Answers `[B, C]` of steps over a request's own samples, for recipes that answer late.

        At most `batch_rows` samples take a step together. Those whose step could not be paid for, by budgets or by what
        `terms` allow, failed, was refused or would not end before the deadline keep their answers in `first [B, C]`.
        """
        answers, rows = first.copy(), session.cohort.recipe.batch_rows
        async with self._one_answer:
            session.terms = terms
            for start in range(0, len(inputs), rows):
                part = inputs[start : start + rows]
                session.buffer.allowance = terms.allowance * len(part) / len(inputs)
                if self._closing or not session.open or session.paused or not self._paying([session], len(part)):
                    continue
                late = not self._in_time(session, len(part), deadline)
                if late or not await self._room(1, True):
                    why = Outcome.SKIPPED_DEADLINE if late else Outcome.SKIPPED_STORE
                    self._in_vain([session], why, len(part), 0.0)
                    continue
                unlabelled = np.full(len(part), UNKNOWN, np.int64)
                result = await self._take_step([session], [Gathered(part, unlabelled)], deadline, replying=True)
                if result is not None and result.outcome[0] in CHANGED:
                    answers[start : start + rows] = result.logits
            session.terms = None
        return answers

    def _in_time(self, session: Session, rows: int, deadline: float | None) -> bool:
        return deadline is None or self._clock.monotonic() + self._cost(session.cohort).estimate(rows) / 1e3 < deadline

    def _paying(self, sessions: list[Session], rows: int) -> list[Session]:
        """The sessions that can pay for a step over `rows` samples of each; the others are told of."""
        estimate = self._cost(sessions[0].cohort).estimate(rows)
        paying = [s for s in sessions if self._afford(s, estimate)]
        for session in (s for s in sessions if s not in paying):
            self._report(undone(session, Outcome.SKIPPED_BUDGET, rows, estimate))
        return paying

    async def _take_step(
        self, sessions: list[Session], gathered: list[Gathered], deadline: float | None = None, replying: bool = False
    ) -> StepResult | None:
        with self._around(sessions, gathered):
            return await self._stepped(sessions, gathered, deadline, replying)

    async def _stepped(
        self, sessions: list[Session], gathered: list[Gathered], deadline: float | None, replying: bool
    ) -> StepResult | None:
        """Compute, commit and report a step over as many samples of each session; None if it came to nothing."""
        cohort, rows = sessions[0].cohort, len(gathered[0].inputs)
        state = cohort.bank.gather([s.row for s in sessions])
        if SERVING in state:
            state[SERVING] = np.array([s.version for s in sessions], np.int64)
        epochs = [s.epoch for s in sessions]
        caught_up = np.array([s.behind and not s.late for s in sessions])
        answers = [own.answers for own in gathered if own.answers is not None]
        cost, paced = self._cost(cohort).estimate(rows), cohort.recipe.pace is not None
        may = np.array([self._afford(session, cost) for session in sessions]) if paced else None
        batch = Batch(
            np.concatenate([own.inputs for own in gathered]),
            np.repeat(np.arange(len(sessions)), rows),
            np.concatenate([own.labels for own in gathered]),
            np.concatenate(answers) if len(answers) == len(gathered) else None,
            answering=cohort.recipe.answers_late,
            may=may,
        )
        for session in sessions:
            session.stepping = True
        try:
            computed = await asyncio.get_running_loop().run_in_executor(
                self._pool, compute_step, cohort, state, batch, until(self._slicing, deadline, self._clock), caught_up
            )
            if not await self._room(len(sessions), replying):
                return self._in_vain(sessions, Outcome.SKIPPED_STORE, rows, computed.ms)
        except OutOfTime as late:
            return self._in_vain(sessions, Outcome.SKIPPED_DEADLINE, rows, late.ms)
        except Exception:
            # It costs these samples; the sessions are as they were, and the next step may succeed.
            log.exception("adaptation step failed", model=cohort.key[0], recipe=cohort.recipe.name)
            return self._in_vain(sessions, Outcome.SKIPPED_ENGINE_ERROR, rows, 0.0)
        finally:
            for session in sessions:
                session.stepping = False
        self._commit(sessions, epochs, computed, rows)
        return computed.result

    def _in_vain(self, sessions: list[Session], outcome: Outcome, rows: int, ms: float) -> StepResult | None:
        for session in sessions:
            if ms:
                self._pay(session, ms / len(sessions))
            self._report(undone(session, outcome, rows, ms / len(sessions)))
        return None

    def _commit(self, sessions: list[Session], epochs: list[int], computed: Computed, rows: int) -> None:
        result, cohort = computed.result, sessions[0].cohort
        rested = np.isin(result.outcome, RESTED)
        estimate, awake = self._cost(cohort).estimate(rows), int((~rested).sum())
        paid = self._charge(cohort, computed, awake, rows) if awake else 0.0
        for i, (session, epoch) in enumerate(zip(sessions, epochs, strict=True)):
            share = 0.0 if rested[i] else paid
            before = session.version
            stale = session.epoch != epoch
            outcome = Outcome.SKIPPED_STALE if stale else Outcome(int(result.outcome[i]))
            restored, drift = ("", "") if stale else (str(result.reason[i]), Drift(int(result.drift[i])).reason)
            # A reset forgets what was learnt, not what it cost.
            self._pay(session, share, None if stale else one_session(result.state, i))
            if not stale:
                session.drift = tuple(float(level) for level in result.levels[i])
            if restored and not result.back_to[i]:
                session.restore()
            elif not stale and (folded := computed.folded[i]) is not None:
                session.commit(folded, float(result.distance[i]))
            self._report(
                StepReport(
                    session=session,
                    outcome=outcome,
                    version_before=before,
                    restored=restored,
                    restored_to=int(result.back_to[i]) if restored else 0,
                    drift=drift,
                    samples=rows,
                    selected=int(result.selected[i]),
                    forward_rows=0.0 if rested[i] else (result.asked.forward + result.asked.quantized) / awake,
                    ms=estimate if outcome is Outcome.SKIPPED_BUDGET else share,
                )
            )

    def _pay(self, session: Session, ms: float, state: State | None = None) -> None:
        """Charge the session's bucket as it is by now, and those it shares; store its new `state [1, ...]`, if any."""
        if self._shared is not None:
            self._shared.spent(session.tenant, ms)
        if not session.open:
            return
        bank, row = session.cohort.bank, [session.row]
        paid = budget.charge(bank.gather(row, budget.FIELDS), np.array([ms]), self.budget_time(session))
        # Not the whole row where only the bucket changed: what nobody has written to takes no memory.
        put = bank.write if state is None else bank.scatter
        put(row, (state or {}) | paid)

    def _cost(self, cohort: Cohort) -> costs.StepCost:
        return self._costs.get(cohort.key[:2]) or costs.calibrated(cohort.engine.manifest.cost)

    def _charge(self, cohort: Cohort, computed: Computed, sessions: int, rows: int) -> float:
        """Milliseconds that each session of the step pays."""
        result, cost = computed.result, cohort.engine.manifest.cost
        if self._limits.sample_period is not None:
            return costs.charged(cost, result.asked) / sessions
        self._costs[cohort.key[:2]] = self._cost(cohort).observed(sessions * rows, computed.ms)
        return computed.ms / sessions

    def _afford(self, session: Session, estimate: float) -> bool:
        own = session.cohort.bank.gather([session.row], budget.FIELDS)
        affordable = budget.affordable(own, estimate, self.budget_time(session))[0]
        if estimate > session.buffer.allowance or not affordable:
            return False
        return self._shared is None or self._shared.affordable(session.tenant, estimate)

    def budget_time(self, session: Session) -> float:
        """The time, in seconds, at which the session's bucket stands."""
        period = self._limits.sample_period
        return self._clock.monotonic() if period is None else session.account.samples * period
