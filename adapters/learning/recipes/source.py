"""`source`: never learns. What any other recipe has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.learning.lesson import Descent, Lesson
from acclimate.adapters.learning.objectives import likelihood
from acclimate.adapters.learning.units import Example, Unit


@dataclass(frozen=True, slots=True)
class Unlearning:
    """No parameters."""

    def build(self) -> Lesson:
        """A lesson of no epochs."""
        return Lesson("source", _nothing, _no_one, likelihood, Descent(0.0, 0, 1))


def _nothing(_examples: Sequence[Example], _random: np.random.Generator, _room: int) -> list[Unit]:
    return []


def _no_one(_shown: Sequence[Example], _held: Sequence[Example], _room: int) -> list[Unit]:
    return []
