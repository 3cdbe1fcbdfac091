"""The state of a batch of jobs while they learn: rows of theta, what the best was, and what has been spent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.language import TokenRows, TokenScores
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.lesson import Lesson
from acclimate.adapters.learning.objectives import Loss, divergence
from acclimate.adapters.learning.schedule import factor
from acclimate.adapters.learning.units import Targets
from acclimate.adapters.optimisers.adamw import AdamW
from acclimate.adapters.restoration.fisher import FisherPull
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.language.foundation import Foundation, gradient_in_parts
from acclimate.runtime.language.jobs import Job, LearningLimits, Learnt, Progress, Stopped, Verdict
from acclimate.runtime.language.judging import Held, gained, held_out, refused
from acclimate.runtime.language.rollouts import written
from acclimate.runtime.language.rows import Epoch, epoch_of, replayed, rows_of


def _stacked(thetas: Sequence[Float]) -> Float:
    return np.stack(thetas) if thetas else np.zeros((0, 0), np.float32)


class Classroom:
    """Jobs under way. R rows of theta, J jobs; `active` jobs still learn."""

    def __init__(
        self,
        engine: LanguageEngine,
        lesson: Lesson,
        jobs: Sequence[Job],
        base: Foundation,
        now: Callable[[], float],
        limits: LearningLimits,
    ) -> None:
        self._engine, self._lesson, self._jobs, self._base, self._now = engine, lesson, jobs, base, now
        self._limits, self._room = limits, min(limits.room, engine.context)
        self._rows = rows_of(lesson, jobs, self._room)
        self._job = np.array([row.job for row in self._rows], np.int64)
        self._answers = np.array([row.answers for row in self._rows], np.bool_)
        self._theta = _stacked([jobs[row.job].theta for row in self._rows])
        self._rule = AdamW(lesson.descent.lr, lesson.descent.decay)
        self._moments = self._rule.template(engine.source.parameters.size, len(self._rows))
        self._best = _stacked([job.theta for job in jobs])
        count = len(jobs)
        judging = [sum(unit.tokens for unit in row.judges) for row in self._rows]
        self._judging = np.bincount(self._job, judging, minlength=count).astype(np.int64)
        self._check_tokens = self._judging + base.tokens
        self._stopped: dict[int, Stopped] = {}
        self._told: set[int] = set()
        self._verdict = [Verdict.NOTHING] * count
        self._before: dict[int, Held] = {}
        self._after: dict[int, Held] = {}
        self._worse, self._checked = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._tokens, self._loss = np.zeros(count, np.int64), np.zeros(count)
        self._taken, self._total = np.zeros(len(self._rows), np.int64), np.zeros(len(self._rows), np.int64)
        self._ratio = np.ones(count)
        self._started = now()
        self._slowest_ms = {"step": 0.0, "check": 0.0}
        self._epoch: Epoch | None = None

    @property
    def active(self) -> list[int]:
        """Jobs that have not ended."""
        return [job for job in range(len(self._jobs)) if job not in self._stopped]

    @property
    def steps(self) -> int:
        """Steps of the epoch that was composed last."""
        return 0 if self._epoch is None else self._epoch.plan.shape[1]

    def begin(self) -> None:
        """Measure what is held out before anything is learnt; a job that cannot pay for it and a step ends here."""
        began = self._now()
        able = [job for job in self.active if not self._short(job, self._check_tokens[job])]
        self.stop([job for job in self.active if job not in able], Stopped.TOKENS)
        self._before = self._held(able)
        self._after = dict(self._before)
        self._slowest_ms["check"] = 1e3 * (self._now() - began)

    def compose(self, epoch: int) -> None:
        """The units of the next epoch, of rows whose jobs are active; a job without any ends."""
        lesson, active = self._lesson, set(self.active)
        random = [np.random.default_rng([self._jobs[row.job].seed, epoch, row.number]) for row in self._rows]
        live = [row for row, job in enumerate(self._job) if job in active]
        examples = {row: self._rows[row].examples for row in live}
        if lesson.rollouts is not None:
            told = written(
                self._engine,
                lesson.rollouts,
                [(self._jobs[self._job[r]], examples[r]) for r in live],
                self._theta[live],
                epoch,
            )
            examples = dict(zip(live, (texts for texts, _ in told), strict=True))
            np.add.at(self._tokens, self._job[live], [cost for _, cost in told])
        units = [
            lesson.compose(examples[r], random[r], self._room) if r in examples else [] for r in range(len(self._rows))
        ]
        extra = [
            replayed(lesson, self._jobs[self._job[r]], len(own), random[r], self._room) if own else []
            for r, own in enumerate(units)
        ]
        empty = {int(self._job[r]) for r in live if self._answers[r] and not units[r]}
        self.stop(sorted(empty), Stopped.FINISHED)
        limits = self._limits
        self._epoch = epoch_of(self._engine, self._base, lesson, units, extra, random, limits.tokens_at_once)
        left = self._epoch.steps * lesson.descent.epochs
        self._total = np.where(self._total == 0, left, self._total)

    def spent(self, step: int) -> list[int]:
        """Jobs whose budget does not reach for this step and the check after it; they have ended."""
        tokens = self._step_tokens(step)
        reserve_ms = self._slowest_ms["step"] + self._slowest_ms["check"]
        out_of_tokens = [job for job in self.active if self._short(job, tokens[job] + self._check_tokens[job])]
        self.stop(out_of_tokens, Stopped.TOKENS)
        elapsed = self._elapsed_ms()
        late = [
            job
            for job in self.active
            if (bound := self._jobs[job].budget.milliseconds) is not None and elapsed + reserve_ms > bound
        ]
        self.stop(late, Stopped.MILLISECONDS)
        return out_of_tokens + late

    def cancel(self, sessions: Collection[str]) -> None:
        """End the jobs of these sessions; they keep nothing."""
        ending = [job for job in self.active if self._jobs[job].session in sessions]
        self.stop(ending, Stopped.CANCELLED)
        for job in ending:
            self._best[job] = self._jobs[job].theta
            self._verdict[job] = Verdict.NOTHING

    def stop(self, jobs: Collection[int], why: Stopped) -> None:
        """These take no further step."""
        self._stopped |= {job: why for job in jobs if job not in self._stopped}

    def step(self, step: int) -> Iterator[Progress]:
        """One step of every active row: one call of the engine, one update."""
        began, epoch = self._now(), self._epoch
        assert epoch is not None  # noqa: S101
        rows = np.flatnonzero(np.isin(self._job, self.active) & (step < epoch.steps))
        if not len(rows):
            return
        group, place = np.nonzero(epoch.plan[rows, step] >= 0)
        index = epoch.plan[rows, step][group, place]
        taken, targets = epoch.stacked.take(index, group)
        base = epoch.base[index, : taken.ids.shape[1]]
        losses, gradient = self._gradient(rows, taken, targets, base)
        self._update(rows, gradient)
        np.add.at(self._tokens, self._job[rows[group]], taken.lengths)
        mine = self._answers[rows]
        self._loss[self._job[rows[mine]]] = losses[mine]
        self._slowest_ms["step"] = max(self._slowest_ms["step"], 1e3 * (self._now() - began))
        for job in self._job[rows[mine]]:
            yield self._progress(int(job))

    def check(self, jobs: Collection[int]) -> Iterator[Progress]:
        """Judge jobs that have taken steps; the best so far is remembered, and who gets no better ends."""
        # What was judged already and has not moved since is not judged, nor charged for it, twice.
        judged = [job for job in sorted(jobs) if self._taken[self._result(job)] > self._checked[job]]
        if not judged:
            return
        began = self._now()
        results = np.array([self._result(job) for job in judged])
        why, ratio = refused(self._engine, self._base, self._theta[results], self._limits)
        after = self._held(judged)
        self._tokens[judged] += self._base.tokens
        self._checked[judged] = self._taken[results]
        for at, job in enumerate(judged):
            self._judge(job, why[at], after[job], float(ratio[at]))
            yield self._progress(job, after[job].perplexity, why[at])
        self._slowest_ms["check"] = max(self._slowest_ms["check"], 1e3 * (self._now() - began))

    def ended(self) -> Iterator[Learnt]:
        """The jobs that have ended and were not told yet."""
        for job in sorted(set(self._stopped) - self._told):
            self._told.add(job)
            kept = self._verdict[job].kept
            before, after = self._before.get(job), self._after.get(job)
            yield Learnt(
                session=self._jobs[job].session,
                theta=self._best[job].copy() if kept else self._jobs[job].theta,
                verdict=self._verdict[job],
                stopped=self._stopped[job],
                steps=int(self._taken[self._result(job)]),
                tokens=int(self._tokens[job]),
                milliseconds=self._elapsed_ms(),
                loss=float(self._loss[job]),
                held_out_before=before.perplexity if before else None,
                held_out_after=after.perplexity if after else None,
                accuracy_before=before.accuracy if before else None,
                accuracy_after=after.accuracy if after else None,
                reached=self._theta[self._result(job)].copy(),
                canary_ratio=float(self._ratio[job]),
            )

    def _judge(self, job: int, why: Verdict | None, after: Held, ratio: float) -> None:
        if why is not None:
            # What passed an earlier check stands: the roll-back is to the best that did.
            if not self._verdict[job].kept:
                self._verdict[job], self._ratio[job] = why, ratio
            self.stop([job], Stopped.GUARD)
            return
        if not len(after.losses):
            self._keep(job, Verdict.UNJUDGED, after, ratio)
            return
        best = self._after[job].mean if self._verdict[job].kept else np.inf
        if gained(self._before[job], after, self._lesson.holding) and after.mean < best:
            self._keep(job, Verdict.LEARNT, after, ratio)
            self._worse[job] = 0
            return
        if not self._verdict[job].kept:
            self._verdict[job], self._ratio[job] = Verdict.NOT_BETTER, ratio
            self._after[job] = after
        self._worse[job] += 1
        if self._worse[job] >= self._limits.patience:
            self.stop([job], Stopped.PATIENCE)

    def _keep(self, job: int, verdict: Verdict, after: Held, ratio: float) -> None:
        self._verdict[job], self._after[job], self._ratio[job] = verdict, after, ratio
        self._best[job] = self._theta[self._result(job)]

    def _gradient(self, rows: NDArray[np.intp], taken: TokenRows, targets: Targets, base: Float) -> tuple[Float, Float]:
        """Losses `[R']` of the rows in a step, and gradients `[R', P]`."""
        found: list[Loss] = []

        def pullback(scores: TokenScores) -> TokenScores:
            loss = self._lesson.objective(scores, taken, targets, len(rows))
            if self._lesson.anchors.kl > 0:
                loss = loss.plus(divergence(scores, base, taken, targets, len(rows)), self._lesson.anchors.kl)
            found.append(loss)
            return loss.cotangents

        gradient = gradient_in_parts(self._engine, taken, self._theta[rows], pullback, self._limits.tokens_at_once)
        return found[0].value, gradient

    def _update(self, rows: NDArray[np.intp], gradient: Float) -> None:
        """AdamW on these rows, then the pull toward the source."""
        descent, source = self._lesson.descent, self._engine.source.theta
        moments = {name: value[rows] for name, value in self._moments.items()}
        rate = factor(self._taken[rows], self._total[rows], descent.warmup, cosine=descent.cosine)
        # A gradient that is not finite makes theta so, and the next check refuses it.
        with np.errstate(over="ignore", invalid="ignore"):
            theta, moments = self._rule.next(moments, self._theta[rows], gradient, source, rate)
            if self._lesson.anchors.pull > 0:
                theta = FisherPull(self._lesson.anchors.pull).apply(theta, source, self._base.fisher)
        self._theta[rows] = theta
        for name, value in moments.items():
            self._moments[name][rows] = value
        self._taken[rows] += 1

    def _held(self, jobs: Collection[int]) -> dict[int, Held]:
        """Losses of what is held out, of these jobs; its tokens are charged."""
        rows = [row for row, job in enumerate(self._job) if job in set(jobs)]
        judges = [self._rows[row].judges for row in rows]
        self._tokens[list(jobs)] += self._judging[list(jobs)]
        own = [int(self._job[row]) for row in rows]
        return held_out(self._engine, self._theta[rows], judges, own, self._limits.tokens_at_once)

    def _result(self, job: int) -> int:
        """The row whose theta is the job's result."""
        return int(np.flatnonzero((self._job == job) & self._answers)[0])

    def _step_tokens(self, step: int) -> NDArray[np.int64]:
        """Tokens `[J]` of a step of each job."""
        epoch = self._epoch
        assert epoch is not None  # noqa: S101
        plan = epoch.plan[:, step]
        lengths = np.where(plan >= 0, epoch.stacked.lengths[np.maximum(plan, 0)], 0).sum(axis=1)
        result: NDArray[np.int64] = np.bincount(self._job, lengths, minlength=len(self._jobs)).astype(np.int64)
        return result

    def _short(self, job: int, tokens: np.int64) -> bool:
        bound = self._jobs[job].budget.tokens
        return bound is not None and bool(self._tokens[job] + tokens > bound)

    def _elapsed_ms(self) -> float:
        return 1e3 * (self._now() - self._started)

    def _progress(self, job: int, held: float | None = None, why: Verdict | None = None) -> Progress:
        budget, elapsed, row = self._jobs[job].budget, self._elapsed_ms(), self._result(job)
        return Progress(
            session=self._jobs[job].session,
            step=int(self._taken[row]),
            steps=int(self._total[row]),
            tokens=int(self._tokens[job]),
            loss=float(self._loss[job]),
            milliseconds=elapsed,
            held_out_perplexity=held,
            tokens_left=None if budget.tokens is None else max(budget.tokens - int(self._tokens[job]), 0),
            milliseconds_left=None if budget.milliseconds is None else max(budget.milliseconds - elapsed, 0.0),
            refused=why,
        )
