"""What a session begins with <-> `Seed` messages."""

from __future__ import annotations

import math

import numpy as np

from acclimate.adapters.layout import Float
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.rpc import tensors
from acclimate.runtime.rpc.convert_tensors import lora, lora_message, tensor_message
from acclimate.runtime.types import Seed
from acclimate.v1 import session_pb2

FIELD = "seed.tensors"


def message(seed: Seed) -> session_pb2.Seed:
    """The message for a seed."""
    return session_pb2.Seed(
        tensors=[tensor_message(name, values) for name, values in seed.tensors.items()],
        lora=[lora_message(update) for update in seed.lora],
    )


def seed(given: session_pb2.Seed) -> Seed:
    """The seed of a message; whether it fits a model is for the service to say.

    Raises:
        InvalidArgument: there is no tensor, one is named twice, or its bytes do not fill its shape.
    """
    if not given.tensors:
        raise InvalidArgument(
            "SEED_EMPTY", "seed has no tensors; send at least one, or no seed to begin at the source", field=FIELD
        )
    arrays: dict[str, Float] = {}
    for entry in given.tensors:
        if entry.name in arrays:
            raise InvalidArgument(
                "TENSOR_REPEATED",
                f"seed has tensor {entry.name[:140]!r} twice; send it once",
                field=FIELD,
                tensor=entry.name,
            )
        arrays[entry.name] = _values(entry)
    return Seed(arrays, tuple(lora(update) for update in given.lora))


def _values(entry: session_pb2.NamedTensor) -> Float:
    dtype, shape = tensors.checked(entry.name, "FP32", entry.shape)
    needed = math.prod(shape) * dtype.itemsize
    if len(entry.values) != needed:
        raise InvalidArgument(
            "BYTE_LENGTH_MISMATCH",
            f"seed tensor {entry.name[:140]!r} of shape {list(shape)} needs {needed} bytes of float32; it has "
            f"{len(entry.values)}",
            field=FIELD,
            tensor=entry.name,
            expected=needed,
            given=len(entry.values),
        )
    return np.frombuffer(entry.values, dtype).reshape(shape).astype(np.float32)
