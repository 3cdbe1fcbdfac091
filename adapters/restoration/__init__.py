"""What brings a session back toward its source: pulls act within a step, resets after it."""

from acclimate.adapters.restoration.averaging import SourceAverage
from acclimate.adapters.restoration.fisher import FisherPull
from acclimate.adapters.restoration.masked import FisherMasked, Masked, Stochastic
from acclimate.adapters.restoration.periodic import PeriodicReset
from acclimate.adapters.restoration.policy import Part, Policy, Reset
from acclimate.adapters.restoration.recovery import Flagged, Refused
from acclimate.adapters.restoration.region import TrustRegion
from acclimate.adapters.restoration.ring import CheckpointRing

__all__ = [
    "CheckpointRing",
    "FisherMasked",
    "FisherPull",
    "Flagged",
    "Masked",
    "Part",
    "PeriodicReset",
    "Policy",
    "Refused",
    "Reset",
    "SourceAverage",
    "Stochastic",
    "TrustRegion",
]
