"""Whether what was learnt may stand: finite, near the source, canaries as likely, held-out examples better known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.distances import theta_distance
from acclimate.adapters.layout import Float
from acclimate.adapters.learning.lesson import Holding
from acclimate.adapters.learning.objectives import choices, sample_losses
from acclimate.adapters.learning.units import Unit, stack
from acclimate.runtime.engines.language import LanguageEngine
from acclimate.runtime.language.foundation import Foundation, canary_losses, score_in_parts
from acclimate.runtime.language.jobs import LearningLimits, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """How well one job's held-out examples are known, in an order that is always the same.

    Attributes:
        losses: `[N]` of the samples, in nats; see `sample_losses`.
        tokens: `[N]` behind each.
        contrasts: `[M]` of the questions among them, in nats; see `choices`.
        right: `[M]` whether the right answer is the likeliest.
        guess: `[M]` how often guessing would be right.
    """

    losses: Float = field(default_factory=lambda: np.zeros(0, np.float32))
    tokens: Float = field(default_factory=lambda: np.zeros(0, np.float32))
    contrasts: Float = field(default_factory=lambda: np.zeros(0, np.float32))
    right: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    guess: Float = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def mean(self) -> float:
        """Mean over samples, in nats."""
        return float(self.losses.mean()) if len(self.losses) else float("nan")

    @property
    def perplexity(self) -> float | None:
        """Of a token; of a sample where candidates are compared; None without samples."""
        if not len(self.losses):
            return None
        return float(np.exp(min((self.losses * self.tokens).sum() / self.tokens.sum(), 50.0)))

    @property
    def accuracy(self) -> float | None:
        """Share of the questions that are answered right; None where there are none."""
        return float(self.right.mean()) if len(self.right) else None


def held_out(
    engine: LanguageEngine, theta: Float, judges: Sequence[Sequence[Unit]], jobs: Sequence[int], at_once: int
) -> dict[int, Held]:
    """What held-out units say, by job.

    Args:
        engine: it scores all rows together.
        theta: `[R, P]`.
        judges: for each row, its units.
        jobs: for each row, its job's number.
        at_once: most tokens of one call.
    """
    units = [unit for own in judges for unit in own]
    result = {job: Held() for job in jobs}
    if not units:
        return result
    owner = np.repeat(np.arange(len(judges)), [len(own) for own in judges])
    rows, targets = stack(units).take(np.arange(len(units)), owner)
    scores = score_in_parts(engine, rows, theta, at_once)
    losses, tokens, unit = sample_losses(scores, targets)
    found = choices(scores, targets)
    job, asked = np.asarray(jobs)[owner[unit]], np.asarray(jobs)[owner[found.row]]
    for n in np.unique(job):
        mine, own = job == n, asked == n
        result[int(n)] = Held(losses[mine], tokens[mine], found.contrast[own], found.right[own], found.guess[own])
    return result


def gained(before: Held, after: Held, holding: Holding) -> bool:
    """Whether held-out samples are better known: by the margin, and by so many standard errors of the paired fall.

    The error of few samples is itself uncertain, and counts for more, as in quantiles of Student: twice with two.
    Where answers have rivals, the right ones have to stand out by as much as well, and be chosen no less often; of some
    recipes, more often than by guessing. The form of answers is soon learnt, makes all of them likelier, and does not
    tell which one is right; and who knows nothing gains by being less sure of it.
    """
    if not _fallen(before.losses - after.losses, holding):
        return False
    if not len(after.right):
        return True
    right = after.right.sum()
    if right < before.right.sum() or (holding.beyond_guessing and right <= after.guess.sum()):
        return False
    return _fallen(before.contrasts - after.contrasts, holding)


def _fallen(fall: Float, holding: Holding) -> bool:
    """Whether losses have fallen by enough, see `gained`."""
    if not len(fall) or not np.isfinite(fall).all():
        return False
    count = len(fall)
    error = float(fall.std(ddof=1)) / count**0.5 * (1 + 1 / (count - 1)) if count > 1 else 0.0
    return float(fall.mean()) > max(holding.margin, holding.errors * error)


def refused(
    engine: LanguageEngine, base: Foundation, theta: Float, limits: LearningLimits
) -> tuple[list[Verdict | None], Float]:
    """Why each row `[R, P]` may not stand, or None; and its `canary_ratio [R]`, see `Learnt`."""
    source = engine.source.theta
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(theta), axis=1)
    near = theta_distance(np.where(finite[:, np.newaxis], theta, source), engine.source) <= limits.trust_radius
    sound = np.flatnonzero(finite & near)
    rise = np.zeros(len(theta), np.float32)
    if len(sound):
        losses = canary_losses(engine, base, theta[sound], limits.tokens_at_once)
        rise[sound] = (losses - base.loss).max(axis=1)
    verdicts: list[Verdict | None] = []
    for row in range(len(theta)):
        if not finite[row] or not np.isfinite(rise[row]):
            verdicts.append(Verdict.NONFINITE)
        elif not near[row]:
            verdicts.append(Verdict.TRUST_REGION)
        else:
            verdicts.append(Verdict.CANARY if rise[row] > np.log1p(limits.canary_tolerance) else None)
    return verdicts, np.exp(np.minimum(np.nan_to_num(rise), 50.0)).astype(np.float32)
