"""The parts that the service is put together from."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.runtime.account import Account
from acclimate.runtime.clock import Clock
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.events import EventHub
from acclimate.runtime.scheduler.learner import Learner
from acclimate.runtime.scheduler.predictor import Predictor
from acclimate.runtime.seeding import Seeder
from acclimate.runtime.sessions.residency import Residency
from acclimate.runtime.sessions.table import SessionTable


@dataclass(frozen=True)
class Parts:
    """What the service is made of; `runtime/wiring.py` builds them."""

    engines: dict[str, Engine]
    table: SessionTable
    predictor: Predictor
    learner: Learner
    seeder: Seeder
    account: Account
    residency: Residency
    hub: EventHub
    clock: Clock
    max_rows: int
    max_snapshots: int
    synchronous: bool
