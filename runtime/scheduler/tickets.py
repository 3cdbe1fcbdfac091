"""A request while it waits, and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from acclimate.adapters.accuracy import Scores
from acclimate.adapters.layout import Float
from acclimate.runtime.engines.base import Engine, Folded
from acclimate.runtime.inference import DEFAULT_PRIORITY
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.sessions.terms import Terms


@dataclass(eq=False, slots=True)
class Ticket:
    """A request in the queue.

    `session` is None for stateless requests; times are monotonic seconds; `mark` is what an observer put on it.
    """

    engine: Engine
    session: Session | None
    inputs: NDArray[Any]
    arrived: float
    deadline: float | None
    learn: bool
    request_id: str
    answer: asyncio.Future[Answer] = field(repr=False)
    terms: Terms = field(default_factory=Terms, repr=False)
    priority: int = DEFAULT_PRIORITY
    tenant: str = ""
    mark: object | None = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        """Its samples."""
        return len(self.inputs)

    @property
    def folded(self) -> Folded | None:
        """What answers it: the session's own parameters, or None for the frozen graph."""
        return None if self.session is None else self.session.folded

    @property
    def lane(self) -> Hashable:
        """Requests of one lane can run as one batch."""
        return id(self.engine), None if self.folded is None else id(self.session)


@dataclass(frozen=True, slots=True)
class Answer:
    """What answered, logits `[B, C]`, what they score, their parameters' version, and the time taken (seconds).

    `queued` until its batch was put together, in `gathered`; `computed` in the engine; `scored` from then on. `leads`
    is true for one answer of each batch.
    """

    engine: Engine
    logits: Float
    scores: Scores
    version: int
    queued: float
    computed: float
    batch_rows: int
    gathered: float = 0.0
    scored: float = 0.0
    leads: bool = True
