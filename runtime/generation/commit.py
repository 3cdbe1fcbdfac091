"""The end of a lesson: what was learnt becomes the session's, as one transaction, or nothing does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from acclimate.adapters.distances import theta_distance
from acclimate.adapters.fields import STEPS, THETA
from acclimate.adapters.outcome import Outcome
from acclimate.runtime.account import Account
from acclimate.runtime.generation.desk import Desk
from acclimate.runtime.generation.lessons import Pupil
from acclimate.runtime.generation.remembering import remember
from acclimate.runtime.generation.types import LearnOutcome, LearnVerdict
from acclimate.runtime.language.jobs import Learnt, Stopped, Verdict
from acclimate.runtime.scheduler.report import StepReport
from acclimate.runtime.scheduler.room import Room

REFUSALS = {
    Verdict.CANARY: Outcome.ROLLED_BACK_CANARY,
    Verdict.TRUST_REGION: Outcome.ROLLED_BACK_TRUST_REGION,
    Verdict.NONFINITE: Outcome.ROLLED_BACK_NONFINITE,
    Verdict.NOT_BETTER: Outcome.ROLLED_BACK_NOT_BETTER,
}
SPENT = (Stopped.TOKENS, Stopped.MILLISECONDS)
VERDICTS = {
    "applied": LearnVerdict.COMMITTED,
    "skipped": LearnVerdict.SKIPPED,
    "rolled_back": LearnVerdict.ROLLED_BACK,
}


class Committing:
    """Touched on the event loop's thread only.

    Args:
        desk: the model's.
        account: hears of every lesson, as of every step.
        room: asked before a commit, see `scheduler/room.py`.
        now: seconds, on the service's clock.
    """

    def __init__(self, desk: Desk, account: Account, room: Room, now: Callable[[], float]) -> None:
        self._desk, self._account, self._room, self._now = desk, account, room, now

    async def commit(self, pupil: Pupil, learnt: Learnt) -> LearnOutcome:
        """How the lesson has ended."""
        outcome = judged(learnt)
        commits = outcome is Outcome.APPLIED and not pupil.discard
        if commits and not pupil.given_up and not await self._room(1, True):
            outcome = Outcome.SKIPPED_STORE
        if pupil.given_up:
            # Asked last: others had their turn meanwhile.
            outcome = Outcome.SKIPPED_STALE
        session, before = pupil.session, pupil.session.version
        if outcome is Outcome.APPLIED:
            self._apply(pupil, learnt)
        if session.open and pupil.discard:
            self._account.spent(session, pupil.cost_ms)
        elif session.open:
            self._account.stepped(
                StepReport(
                    session=session,
                    outcome=outcome,
                    version_before=before,
                    restored="",
                    restored_to=0,
                    drift="",
                    samples=len(pupil.examples),
                    selected=len(pupil.examples) if learnt.steps else 0,
                    forward_rows=0.0,
                    ms=pupil.cost_ms,
                )
            )
        verdict = VERDICTS[outcome.kind]
        if pupil.discard and outcome is Outcome.APPLIED:
            verdict = LearnVerdict.USED
        self._counted(pupil, learnt, verdict)
        return LearnOutcome(
            verdict=verdict,
            reason=outcome.reason,
            stopped=learnt.stopped.value,
            version=session.version,
            steps=learnt.steps,
            tokens=learnt.tokens,
            elapsed_ms=(self._now() - pupil.asked_at) * 1e3,
            cost_ms=pupil.cost_ms,
            held_out_perplexity_before=learnt.held_out_before or 0.0,
            held_out_perplexity_after=learnt.held_out_after or 0.0,
            theta_distance=session.distance,
            replayed=pupil.replayed,
        )

    def _apply(self, pupil: Pupil, learnt: Learnt) -> None:
        pupil.theta = learnt.theta
        if pupil.discard:
            return
        session, model = pupil.session, self._desk.model
        bank, row = session.cohort.bank, [session.row]
        steps = bank.view(STEPS, session.row) + learnt.steps
        bank.write(row, {THETA: learnt.theta[np.newaxis], STEPS: np.array([steps], np.int64)})
        distance = float(theta_distance(learnt.theta[np.newaxis], model.source)[0])
        session.commit(model.fold(learnt.theta, model.source.stats), distance)
        remember(session, pupil.parameters, pupil.examples, self._desk.limits.replay_tokens)

    def _counted(self, pupil: Pupil, learnt: Learnt, verdict: LearnVerdict) -> None:
        tally = self._desk.tally
        tally.lessons["cancelled" if pupil.left else verdict.value] += 1
        tally.lesson_seconds.add(pupil.cost_ms / 1e3)
        tally.learned_tokens += learnt.tokens


def judged(learnt: Learnt) -> Outcome:
    """What the learner's verdict means for a session's step."""
    if learnt.kept:
        return Outcome.APPLIED
    if learnt.verdict in REFUSALS:
        return REFUSALS[learnt.verdict]
    return Outcome.SKIPPED_BUDGET if learnt.stopped in SPENT else Outcome.SKIPPED_NOT_SELECTED
