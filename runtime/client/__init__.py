"""The Python client: NumPy in, NumPy out, over gRPC. `Client` blocks, `AsyncClient` is for asyncio."""

from acclimate.runtime.client.aio import AsyncClient, AsyncSession
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.results import ModelInfo, Prediction, ServerInfo
from acclimate.runtime.client.sync import Client, Session
from acclimate.runtime.types import (
    Budget,
    Event,
    EventKind,
    ExportedSession,
    Feedback,
    FeedbackResult,
    NamedTensor,
    SessionView,
)

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "Budget",
    "Client",
    "ClientError",
    "Event",
    "EventKind",
    "ExportedSession",
    "Feedback",
    "FeedbackResult",
    "ModelInfo",
    "NamedTensor",
    "Prediction",
    "ServerInfo",
    "Session",
    "SessionView",
]
