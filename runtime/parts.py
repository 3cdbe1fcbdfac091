"""What the service is made of."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.runtime.account import Account
from acclimate.runtime.clock import Clock
from acclimate.runtime.events import EventHub
from acclimate.runtime.generation.model import Model
from acclimate.runtime.generation.service import Generating
from acclimate.runtime.repository.control import ModelRepository
from acclimate.runtime.scheduler.learner import Learner
from acclimate.runtime.scheduler.predictor import Predictor
from acclimate.runtime.scheduler.shadow import Shadow
from acclimate.runtime.seeding import Seeder
from acclimate.runtime.sessions.residency import Residency
from acclimate.runtime.sessions.table import SessionTable


@dataclass(frozen=True)
class Parts:
    """`runtime/wiring.py` builds them; `engines` are the served ones by model."""

    engines: dict[str, Model]
    repository: ModelRepository
    table: SessionTable
    predictor: Predictor
    learner: Learner
    seeder: Seeder
    shadow: Shadow
    account: Account
    residency: Residency
    hub: EventHub
    generating: Generating
    clock: Clock
    max_rows: int
    max_queue: int
    max_snapshots: int
    synchronous: bool

    def served(self) -> list[Model]:
        """Engines by name, safe from any thread."""
        # A copy first: models come and go while a scrape reads.
        engines = dict(self.engines)
        return [engines[name] for name in sorted(engines)]
