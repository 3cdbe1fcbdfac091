"""What goes into the learner and what comes out: jobs, progress, and what was learnt or why nothing was."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import StrEnum

from acclimate.adapters.layout import Float
from acclimate.adapters.learning.units import Example

Answer = Callable[[str], Hashable | None]
"""The answer that a text gives, to be counted in a vote; None: it gives none."""
Verifier = Callable[[str, str], float]
"""How good a text is as a completion of a prompt: 0 to 1. It replaces the vote of `majority`."""


@dataclass(frozen=True, slots=True)
class LearningBudget:
    """Most tokens to be computed for a job, those of its checks among them, and wall milliseconds; None: no bound."""

    tokens: int | None = None
    milliseconds: float | None = None

    def part(self, share: float) -> LearningBudget:
        """A share of it, 0 to 1, tokens rounded down."""
        tokens = None if self.tokens is None else int(self.tokens * share)
        return LearningBudget(tokens, None if self.milliseconds is None else self.milliseconds * share)

    def less(self, tokens: int, milliseconds: float) -> LearningBudget:
        """What is left of it after so much; never less than nothing."""
        return LearningBudget(
            None if self.tokens is None else max(self.tokens - tokens, 0),
            None if self.milliseconds is None else max(self.milliseconds - milliseconds, 0.0),
        )


@dataclass(frozen=True, slots=True)
class LearningLimits:
    """What a proposal must pass, and how much is computed at once.

    Attributes:
        trust_radius: largest relative distance of theta from the source, see `distances.theta_distance`.
        canary_tolerance: how much the perplexity of each group of canaries may rise, as a share.
        patience: checks without a better held-out loss after which a job ends.
        tokens_at_once: most tokens of one call of the engine, padding included.
        room: most tokens of one unit, where the engine's context is longer.
    """

    trust_radius: float = 1.0
    canary_tolerance: float = 0.25
    patience: int = 2
    tokens_at_once: int = 8192
    room: int = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One session's lesson.

    Attributes:
        session: its name in what is reported.
        theta: `[P]`, what it has now and keeps if nothing better is found.
        examples: what it is shown.
        replay: earlier examples, mixed in by recipes that replay.
        held_out: examples to judge by; empty: some of `examples` are held out, as the recipe says.
        budget: when to stop.
        seed: of every random choice.
        answer: see `Answer`; None: the last number of a text, or else its last word.
        verifier: see `Verifier`.
    """

    session: str
    theta: Float
    examples: tuple[Example, ...]
    replay: tuple[Example, ...] = ()
    held_out: tuple[Example, ...] = ()
    budget: LearningBudget = LearningBudget()
    seed: int = 0
    answer: Answer | None = None
    verifier: Verifier | None = None


class Stopped(StrEnum):
    """Why a job took no further step."""

    FINISHED = "finished"
    TOKENS = "tokens"
    MILLISECONDS = "milliseconds"
    CANCELLED = "cancelled"
    PATIENCE = "patience"
    GUARD = "guard"


class Verdict(StrEnum):
    """What became of what was learnt."""

    LEARNT = "learnt"
    UNJUDGED = "unjudged"
    NOT_BETTER = "not_better"
    CANARY = "canary"
    TRUST_REGION = "trust_region"
    NONFINITE = "nonfinite"
    NOTHING = "nothing"

    @property
    def kept(self) -> bool:
        """Whether theta is a new one."""
        return self in (Verdict.LEARNT, Verdict.UNJUDGED)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come. Perplexities are of tokens; None: not measured, or no such bound."""

    session: str
    step: int
    steps: int
    tokens: int
    loss: float
    milliseconds: float
    held_out_perplexity: float | None = None
    tokens_left: int | None = None
    milliseconds_left: float | None = None
    refused: Verdict | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """The end of a job: the row `theta [P]` that the session should have from now on.

    Where nothing was kept it is the one that the job came with, bit for bit. `held_out` are perplexities, `accuracy`
    shares of held-out questions answered right. `canary_ratio` is the perplexity of the group of canaries that has
    suffered most, over the source's. `reached [P]` is where the last step led, kept or not.
    """

    session: str
    theta: Float
    verdict: Verdict
    stopped: Stopped
    steps: int
    tokens: int
    milliseconds: float
    loss: float
    held_out_before: float | None
    held_out_after: float | None
    canary_ratio: float
    accuracy_before: float | None
    accuracy_after: float | None
    reached: Float

    @property
    def kept(self) -> bool:
        """Whether anything was learnt."""
        return self.verdict.kept
