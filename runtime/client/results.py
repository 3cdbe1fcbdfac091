"""What the client returns besides the types it shares with the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.manifest import TensorSpec
from acclimate.runtime.types import Scalar


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer for B samples.

    Attributes:
        logits: `[B, C]` float32, as the model gave them.
        probabilities: `[B, C]` float32, their softmax.
        labels: `[B]` intp, index of the most probable class.
        request_id: names this answer in feedback.
        model: name of the model that answered.
        version: version of the session's parameters that answered; 0 is the source's.
        parameters: everything else that the daemon says about the answer.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.intp]
    request_id: str
    model: str
    version: int
    parameters: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A served model: its tensors, and facts about its adaptation as text (`docs/api.md`)."""

    name: str
    version: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The daemon: times are Unix seconds, sizes bytes."""

    version: str
    pid: int
    started_at: float
    rss_bytes: int
    torch_imported: bool
    transformers_imported: bool
    onnx_imported: bool
    max_message_bytes: int
    max_sessions: int
    recipes: tuple[str, ...]
    default_recipe: str
    models: tuple[str, ...]
