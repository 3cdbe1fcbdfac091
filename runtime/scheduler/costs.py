"""What a step will cost, in milliseconds: from the bundle's calibration at first, then from what steps took here."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.manifest import Cost
from acclimate.adapters.step import Asked

# How fast the estimate follows this machine: a tenth of each new measurement.
FOLLOW = 0.1


@dataclass(frozen=True, slots=True)
class StepCost:
    """Estimated milliseconds per gathered sample of a whole step: forward, gradient and checks."""

    ms_per_sample: float

    def estimate(self, samples: int) -> float:
        """Milliseconds for a step over this many samples."""
        return self.ms_per_sample * samples

    def observed(self, samples: int, ms: float) -> StepCost:
        """The estimate after a step took `ms`."""
        return StepCost((1 - FOLLOW) * self.ms_per_sample + FOLLOW * ms / max(samples, 1))


def float_forward_ms(cost: Cost) -> float:
    """Milliseconds of one sample's float forward pass, as its share of the calibrated gradient pass."""
    return cost.vjp_ms * cost.forward_flops / max(cost.vjp_flops, 1.0)


def calibrated(cost: Cost) -> StepCost:
    """A step asks for a float forward and a gradient per sample, and for two passes of the quantized model."""
    return StepCost(float_forward_ms(cost) + cost.vjp_ms + 2 * cost.forward_ms)


def charged(cost: Cost, asked: Asked) -> float:
    """What these rows cost by calibration alone, in milliseconds: the same on every machine and every run."""
    return float_forward_ms(cost) * asked.forward + cost.vjp_ms * asked.backward + cost.forward_ms * asked.quantized
