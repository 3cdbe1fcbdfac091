"""The Python client: NumPy in, NumPy out, over gRPC. `Client` blocks, `AsyncClient` is for asyncio."""

from acclimate.runtime.client.aio import AsyncClient
from acclimate.runtime.client.aio_session import AsyncSession
from acclimate.runtime.client.errors import ClientError, SessionLost
from acclimate.runtime.client.generating import AsyncGeneration, AsyncLesson, Generation, Lesson
from acclimate.runtime.client.language import learn_first
from acclimate.runtime.client.peft_write import NoLowRankUpdates, write_peft
from acclimate.runtime.client.results import ModelInfo, Prediction, ServerInfo
from acclimate.runtime.client.secure import Tls
from acclimate.runtime.client.seed_file import read_seed
from acclimate.runtime.client.state_file import write_state
from acclimate.runtime.client.sync import Client
from acclimate.runtime.client.sync_session import Session
from acclimate.runtime.client.watching import AsyncWatch, Watch
from acclimate.runtime.engines.language import Message
from acclimate.runtime.generation.types import (
    ComputeBudget,
    GeneratedToken,
    LearnFirst,
    LearnOutcome,
    LearnProgress,
    LearnVerdict,
    Scored,
    ScoreReply,
    Strategy,
    Usage,
)
from acclimate.runtime.lifecycle_types import SnapshotView
from acclimate.runtime.types import (
    Budget,
    CreateSession,
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
    "AsyncGeneration",
    "AsyncLesson",
    "AsyncSession",
    "AsyncWatch",
    "Budget",
    "Client",
    "ClientError",
    "ComputeBudget",
    "CreateSession",
    "Event",
    "EventKind",
    "ExportedSession",
    "Feedback",
    "FeedbackResult",
    "GeneratedToken",
    "Generation",
    "LearnFirst",
    "LearnOutcome",
    "LearnProgress",
    "LearnVerdict",
    "Lesson",
    "Message",
    "ModelInfo",
    "NamedTensor",
    "NoLowRankUpdates",
    "Prediction",
    "ScoreReply",
    "Scored",
    "Seed",
    "ServerInfo",
    "Session",
    "SessionLost",
    "SessionView",
    "SnapshotView",
    "Strategy",
    "Tls",
    "Usage",
    "Watch",
    "learn_first",
    "read_seed",
    "write_peft",
    "write_state",
]
