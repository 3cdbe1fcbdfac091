"""Objectives: one function per file, from logits to loss and cotangent. Add yours and a row to `OBJECTIVES`."""

from acclimate.adapters.objectives.base import Objective, Value
from acclimate.adapters.objectives.entropy import entropy_loss
from acclimate.adapters.objectives.likelihood_ratio import likelihood_ratio_loss

OBJECTIVES: dict[str, Objective] = {"entropy": entropy_loss, "likelihood_ratio": likelihood_ratio_loss}

__all__ = ["OBJECTIVES", "Objective", "Value", "entropy_loss", "likelihood_ratio_loss"]
