"""What a store keeps of a session, and what it is asked: the seam behind which a remote store can follow.

Calls block and belong on the store's own thread, never on the event loop. A store holds records under model and
session id, each owned by one daemon at a time: `owner` names it and `epoch` grows with every change of owner, so
that a write under an old epoch changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from acclimate.adapters.accuracy import Telemetry


@dataclass(frozen=True)
class SessionRecord:
    """One session at one moment: all of it but the samples that wait and the answers it remembers.

    Attributes:
        bundle: digest of the model that the fields belong to, see `sessions.recording.bundle_digest`.
        parameters: of the recipe, effective.
        state, version, distance, drift, telemetry, account: as on the session.
        created_at, last_used_at, recorded_at: Unix seconds.
        budget_clock, budget_at: which clock the budget's bucket runs on, and its seconds at `recorded_at`.
        ttl_seconds: idle time after which the session is deleted for good, or None.
        attributes: anything else that is JSON; readers leave alone what they do not know.
        fields: the session's row of its bank, field name to array without the session axis.
    """

    model: str
    session_id: str
    bundle: str
    recipe: str
    parameters: Mapping[str, float]
    state: str
    version: int
    created_at: float
    last_used_at: float
    recorded_at: float
    budget_clock: str
    budget_at: float
    distance: float
    drift: tuple[float, ...]
    telemetry: Telemetry
    account: Mapping[str, Any]
    from_sequence: bool = False
    behind: bool = False
    ttl_seconds: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """Model and id."""
        return self.model, self.session_id


class StoreError(Exception):
    """The store could not do what it was asked, and may be able to later: a full disk, an I/O error."""


class Damaged(Exception):
    """A record does not hold: its checksum is wrong, or it is no record."""
