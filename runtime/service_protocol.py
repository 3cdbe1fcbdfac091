"""What the edges may ask of the service. `runtime/service.py` is the implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from acclimate.adapters.manifest import Manifest
from acclimate.runtime.generation.service import Generating
from acclimate.runtime.lifecycle import Lifecycle
from acclimate.runtime.repository.control import ModelRepository
from acclimate.runtime.scheduler.admission import Admission
from acclimate.runtime.scheduler.usage import Usage
from acclimate.runtime.sight import Sight
from acclimate.runtime.types import (
    CreateSession,
    Event,
    EventKind,
    ExportedSession,
    Feedback,
    FeedbackResult,
    InferReply,
    InferRequest,
    ServiceSnapshot,
    SessionPage,
    SessionView,
)


class ServiceProtocol(Protocol):
    """All calls happen on the event loop's thread; every refusal is an `AcclimateError`."""

    @property
    def ready(self) -> bool:
        """Whether new work is accepted: loaded and not draining."""

    @property
    def lifecycle(self) -> Lifecycle:
        """Forks, snapshots, pauses and changes of sessions, and the etags that guard them."""

    @property
    def admission(self) -> Admission:
        """What says whether there is room for one more request."""

    @property
    def sight(self) -> Sight:
        """Looking at sessions without using them."""

    @property
    def repository(self) -> ModelRepository:
        """What changes which models are served."""

    @property
    def generating(self) -> Generating:
        """What language models do: texts generated, learnt from and scored."""

    def usages(self, name: str, version: str = "") -> tuple[tuple[Manifest, Usage], ...]:
        """What a model, or with an empty name each, has done since it was loaded; NotFound if it is not served."""

    def models(self) -> tuple[Manifest, ...]:
        """Manifests of the served models, by name."""

    def model(self, name: str, version: str = "") -> Manifest:
        """One manifest; NotFound names the models that exist."""

    async def infer(self, request: InferRequest) -> InferReply:
        """Answer, then (in the background, or before the next request in synchronous mode) learn."""

    async def create_session(self, request: CreateSession) -> SessionView:
        """Open a session; AlreadyExists if the id is taken, FailedPrecondition if a guard refuses its seed."""

    async def get_session(self, model: str, session_id: str) -> SessionView:
        """The session, or NotFound."""

    async def list_sessions(
        self, model: str | None, page_size: int, page_token: str, text: str = "", every_tenant: bool = False
    ) -> SessionPage:
        """A page ordered by tenant, model and id; page_size 0 means the default, negative is InvalidArgument.

        `text` is a filter (`sessions/filters.py`); every tenant's sessions are listed for administrators alone.
        """

    async def reset_session(self, model: str, session_id: str) -> SessionView:
        """Back to the source: parameters, optimiser, statistics, filters, buffer. Counters stay."""

    async def export_session(self, model: str, session_id: str) -> ExportedSession:
        """What the session has learnt: parameters and statistics by name, at one version; or NotFound."""

    async def delete_session(self, model: str, session_id: str) -> None:
        """Close and forget, or NotFound."""

    async def feedback(self, model: str, session_id: str, labels: Sequence[Feedback]) -> FeedbackResult:
        """Count true labels against remembered answers; InvalidArgument for a label outside the classes."""

    def watch(
        self, model: str | None, session_id: str | None, kinds: Collection[EventKind] = (), after: str = ""
    ) -> AsyncIterator[Event]:
        """Events from now on, or after the token `after`, until cancelled or the daemon drains; of `kinds`, or of all.

        NotFound for a session that is not there.
        """

    def snapshot(self) -> ServiceSnapshot:
        """Figures for metrics; safe to call from any thread."""

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new work, finish what is queued, end every watch."""
