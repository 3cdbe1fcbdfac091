"""The Python client: NumPy in, NumPy out, over gRPC. `Client` blocks, `AsyncClient` is for asyncio."""

from acclimate.runtime.client.aio import AsyncClient, AsyncSession
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.peft_write import NoLowRankUpdates, write_peft
from acclimate.runtime.client.results import ModelInfo, Prediction, ServerInfo
from acclimate.runtime.client.secure import Tls
from acclimate.runtime.client.seed_file import read_seed
from acclimate.runtime.client.state_file import write_state
from acclimate.runtime.client.sync import Client, Session
from acclimate.runtime.types import (
    Budget,
    Event,
    EventKind,
    ExportedSession,
    Feedback,
    FeedbackResult,
    NamedTensor,
    Seed,
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
    "NoLowRankUpdates",
    "Prediction",
    "Seed",
    "ServerInfo",
    "Session",
    "SessionView",
    "Tls",
    "read_seed",
    "write_peft",
    "write_state",
]
