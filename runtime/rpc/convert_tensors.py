"""Named tensors and low-rank updates, as sessions take them in and out, <-> messages."""

from __future__ import annotations

from typing import cast

import numpy as np

from acclimate.adapters.layout import Float, Kind
from acclimate.adapters.manifest import Lora
from acclimate.runtime.types import NamedTensor
from acclimate.v1 import session_pb2


def tensor_message(name: str, values: Float, kind: str = "") -> session_pb2.NamedTensor:
    """The message for a float32 tensor."""
    raw = values.astype("<f4", copy=False).tobytes()
    return session_pb2.NamedTensor(name=name, kind=kind, shape=values.shape, values=raw)


def named_tensor(message: session_pb2.NamedTensor) -> NamedTensor:
    """Inverse of `tensor_message`.

    Raises:
        ValueError: the bytes do not fill the shape.
    """
    values = np.frombuffer(message.values, "<f4").astype(np.float32).reshape(tuple(message.shape))
    return NamedTensor(message.name, cast(Kind, message.kind), values)


def lora_message(update: Lora) -> session_pb2.Lora:
    """The message for a low-rank update."""
    return session_pb2.Lora(name=update.name, a=update.a, b=update.b, rank=update.rank, alpha=update.alpha)


def lora(message: session_pb2.Lora) -> Lora:
    """Inverse of `lora_message`."""
    return Lora(message.name, message.a, message.b, message.rank, message.alpha)
