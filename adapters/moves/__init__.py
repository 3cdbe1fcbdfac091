"""Moves: how a step changes theta. One idea per file; a recipe names one, or none if it only follows statistics."""

from acclimate.adapters.moves.aligning import Aligning
from acclimate.adapters.moves.base import Move, Moved, Seen
from acclimate.adapters.moves.critical import Critical
from acclimate.adapters.moves.crowd import CrowdFiltered
from acclimate.adapters.moves.descent import Descent
from acclimate.adapters.moves.diversity import DiverseAndCertain
from acclimate.adapters.moves.evolution import Evolving
from acclimate.adapters.moves.feedback import Labelled
from acclimate.adapters.moves.following import Following
from acclimate.adapters.moves.perturbation import Perturbed
from acclimate.adapters.moves.remembering import Remembering
from acclimate.adapters.moves.restoring import Restoring
from acclimate.adapters.moves.sharpness import SharpnessAware
from acclimate.adapters.moves.structure import StructureAware
from acclimate.adapters.moves.teacher import TaughtStudent
from acclimate.adapters.moves.views import AgreeingViews

__all__ = [
    "AgreeingViews",
    "Aligning",
    "Critical",
    "CrowdFiltered",
    "Descent",
    "DiverseAndCertain",
    "Evolving",
    "Following",
    "Labelled",
    "Move",
    "Moved",
    "Perturbed",
    "Remembering",
    "Restoring",
    "Seen",
    "SharpnessAware",
    "StructureAware",
    "TaughtStudent",
]
