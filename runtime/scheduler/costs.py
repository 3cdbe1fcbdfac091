"""What a step will cost, in milliseconds: from the bundle's calibration at first, then from what steps took here."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.adapters.manifest import Cost

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
    """A step asks for two float forwards and one gradient per sample, and one pass of the quantized model."""
    return StepCost(2 * float_forward_ms(cost) + cost.vjp_ms + cost.forward_ms)


def charged(cost: Cost, forward_rows: int, backward_rows: int) -> float:
    """What a step with these rows costs by calibration alone: the same on every machine and every run."""
    return float_forward_ms(cost) * forward_rows + cost.vjp_ms * backward_rows
