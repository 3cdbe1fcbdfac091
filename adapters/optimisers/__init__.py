"""Optimisers: `template` gives one session's state, `next` maps (state, theta, gradient) to the new ones."""

from acclimate.adapters.optimisers.adam import Adam
from acclimate.adapters.optimisers.adamw import AdamW
from acclimate.adapters.optimisers.sgd import Sgd

Optimiser = Sgd | Adam

__all__ = ["Adam", "AdamW", "Optimiser", "Sgd"]
