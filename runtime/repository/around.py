"""What a change of models touches."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from acclimate.runtime.account import Account
from acclimate.runtime.bundle import Bundle
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.generation.model import Model
from acclimate.runtime.repository.adoption import Adoption
from acclimate.runtime.repository.shelves import Shelves
from acclimate.runtime.scheduler.learner import Learner
from acclimate.runtime.scheduler.predictor import Predictor
from acclimate.runtime.sessions.table import SessionTable


@dataclass(frozen=True)
class Around:
    """What a change of models touches; `read` verifies a bundle, `build` makes its engine, both on a thread.

    `engines` are the served ones by model, shared with everyone who looks a model up.
    """

    shelves: Shelves
    read: Callable[[Path], Bundle]
    build: Callable[[Bundle], Engine]
    engines: MutableMapping[str, Model]
    table: SessionTable
    predictor: Predictor
    learner: Learner
    account: Account
    adoption: Adoption
    trust_radius: float
