"""How a session is brought back, as numbers that an operator or a client chooses: no code, the same for every recipe.

Pull, stochastic, masked and radius put part of theta back at each step. The triggers say when a session goes back as a
whole: to the best checkpoint of its ring, or to the source where it has none. Zero turns each of them off.
"""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.outcome import Outcome
from acclimate.adapters.restoration.fisher import FisherPull
from acclimate.adapters.restoration.masked import FisherMasked, Stochastic
from acclimate.adapters.restoration.periodic import PeriodicReset
from acclimate.adapters.restoration.recovery import Flagged, Refused
from acclimate.adapters.restoration.region import TrustRegion
from acclimate.adapters.restoration.ring import CheckpointRing

PREFIX = "restoration."
PARTS = ("pull", "stochastic", "masked", "radius")
"""Fields of a policy that act on theta within a step."""

Part = FisherPull | Stochastic | FisherMasked | TrustRegion
Reset = PeriodicReset | Flagged | Refused


@dataclass(frozen=True, slots=True)
class Policy:
    """What brings a session back.

    Attributes:
        pull: strength of a pull toward the source, weighted by its Fisher (EATA: Niu et al. 2022, eq. 8), beside what
            the recipe has itself.
        stochastic: probability with which each parameter goes back at a step (CoTTA: Wang et al. 2022, eq. 8).
        masked: share of the parameters, those of least squared gradient, that goes back at a step (PETAL: Brahma and
            Rai 2023, eq. 9).
        radius: theta is kept within this relative distance of the source by projection, where the guard's trust
            region refuses the step.
        every: the session goes back at each `every`-th step (RDumb: Press et al. 2023).
        on_drift: it goes back when its stream changes.
        on_canary: it goes back at the first step that the canary guard refuses.
        on_collapse: it goes back at the first step that the collapse guard refuses.
        rollbacks: refusals in a row after which it goes back; 0 as the daemon is configured.
        ring: checkpoints that the session keeps to go back to; with none it goes back to the source.
        ring_every: steps between two of them.
    """

    pull: float = 0.0
    stochastic: float = 0.0
    masked: float = 0.0
    radius: float = 0.0
    every: int = 0
    on_drift: bool = False
    on_canary: bool = False
    on_collapse: bool = False
    rollbacks: int = 0
    ring: int = 0
    ring_every: int = 16

    def parts(self) -> tuple[Part, ...]:
        """What acts on theta within a step, in this order: the region comes last, so that it holds."""
        chosen: list[Part] = []
        if self.pull:
            chosen.append(FisherPull(self.pull))
        if self.stochastic:
            chosen.append(Stochastic(self.stochastic))
        if self.masked:
            chosen.append(FisherMasked(self.masked))
        if self.radius:
            chosen.append(TrustRegion(self.radius))
        return tuple(chosen)

    def resets(self, drift: str) -> tuple[Reset, ...]:
        """When the session goes back as a whole; `drift` names the field that an alarm sets."""
        chosen: list[Reset] = []
        if self.on_drift:
            chosen.append(Flagged(drift, "drift"))
        if self.on_canary:
            chosen.append(Refused(Outcome.ROLLED_BACK_CANARY))
        if self.on_collapse:
            chosen.append(Refused(Outcome.ROLLED_BACK_COLLAPSE))
        if self.every:
            chosen.append(PeriodicReset(self.every))
        return tuple(chosen)

    def checkpoints(self) -> CheckpointRing | None:
        """The ring, if there is one."""
        return CheckpointRing(self.ring, self.ring_every) if self.ring else None
