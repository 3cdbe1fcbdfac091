"""How much of everything one request may hold, checked over any message before a servicer sees it.

Whatever rpc is added, its names, lists and maps are bounded, without a line of its own. Tensor contents are not
walked: the size of the message bounds them. Nor is a message so small that nothing in it can be too much.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from acclimate.oip.v1 import inference_pb2
from acclimate.runtime.errors import InvalidArgument
from acclimate.v1 import generation_pb2, generation_service_pb2, session_service_pb2

# Bounded by its own rule, which says more about it: `convert_sessions.MAX_LABELS`.
LABELS = session_service_pb2.SendFeedbackRequest.DESCRIPTOR.fields_by_name["labels"]
CONTENTS = inference_pb2.InferTensorContents.DESCRIPTOR
# The text of a parameter, of inference and of models alike.
PARAMETER = "string_param"
RAW = "raw_input_contents"
# What people write and read, and not names.
TEXTS = frozenset(
    f"{kind.DESCRIPTOR.full_name}.{field}"
    for kind, fields in (
        (generation_pb2.ChatMessage, ("content",)),
        (generation_pb2.Pair, ("prompt", "completion")),
        (generation_pb2.Texts, ("texts",)),
        (generation_service_pb2.GenerateRequest, ("prompt",)),
        (generation_service_pb2.ScoreRequest, ("prompt", "texts")),
    )
    for field in fields
)


@dataclass(frozen=True)
class MessageLimits:
    """At most: entries of a list and of a map, characters of a name, bytes of a parameter's text and of a text."""

    max_tensors: int = 1024
    max_parameters: int = 64
    max_name_length: int = 512
    max_parameter_bytes: int = 16_384
    max_text_bytes: int = 2**20

    @cached_property
    def harmless_bytes(self) -> int:
        """What fits into so many bytes exceeds no limit: an entry of a list takes two at least, one of a map four."""
        texts = min(self.max_name_length, self.max_parameter_bytes, self.max_text_bytes)
        return min(texts, 2 * self.max_tensors, 4 * self.max_parameters)


def check(message: Message, limits: MessageLimits, size: int | None = None) -> None:
    """Refuse a message that holds too much of something; `size` is how many bytes it took, where that is known.

    Raises:
        InvalidArgument: names the field, what it holds and the limit.
    """
    size = message.ByteSize() if size is None else size
    if isinstance(message, inference_pb2.ModelInferRequest):
        # What is in them counts for nothing here; that they are there, two bytes each, does.
        size -= sum(map(len, message.raw_input_contents))
    if size > limits.harmless_bytes:
        _walk(message, "", limits)


def _walk(message: Message, path: str, limits: MessageLimits) -> None:
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            _text(field, value, path + field.name, limits)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            _messages(field, value, path + field.name, limits)
        elif field.name == RAW:
            _most(path + field.name, len(value), limits.max_tensors, "entries", "max_tensors")


def _text(field: FieldDescriptor, value: Any, path: str, limits: MessageLimits) -> None:
    if field.name == PARAMETER:
        size = len(value.encode("utf-8", "surrogatepass"))
        _most(path, size, limits.max_parameter_bytes, "bytes", "max_parameter_bytes")
    elif field.full_name in TEXTS:
        texts = (value,) if isinstance(value, str) else value
        _most(path, len(texts), limits.max_tensors, "entries", "max_tensors")
        for text in texts:
            _most(path, len(text.encode("utf-8", "surrogatepass")), limits.max_text_bytes, "bytes", "max_text_bytes")
    elif isinstance(value, str):
        _most(path, len(value), limits.max_name_length, "characters", "max_name_length")
    else:
        _most(path, len(value), limits.max_tensors, "entries", "max_tensors")
        for text in value:
            _most(path, len(text), limits.max_name_length, "characters", "max_name_length")


def _messages(field: FieldDescriptor, value: Any, path: str, limits: MessageLimits) -> None:
    kind: Any = field.message_type
    if kind is CONTENTS:
        return
    if kind.GetOptions().map_entry:
        _map(kind, value, path, limits)
    elif isinstance(value, Message):
        _walk(value, f"{path}.", limits)
    elif field is not LABELS:
        _most(path, len(value), limits.max_tensors, "entries", "max_tensors")
        for entry in value:
            _walk(entry, f"{path}.", limits)
    else:
        for entry in value:
            _most(f"{path}.request_id", len(entry.request_id), limits.max_name_length, "characters", "max_name_length")


def _map(kind: Any, value: Any, path: str, limits: MessageLimits) -> None:
    _most(path, len(value), limits.max_parameters, "entries", "max_parameters")
    for key in value:
        if isinstance(key, Sized):
            _most(path, len(key), limits.max_name_length, "characters in a key", "max_name_length")
    if kind.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE:
        for key in value:
            _walk(value[key], f"{path}[{str(key)[:64]!r}].", limits)


def _most(path: str, given: int, limit: int, what: str, key: str) -> None:
    if given > limit:
        raise InvalidArgument(
            "LIMIT_EXCEEDED",
            f"{path} has {given} {what}; at most {limit} are accepted (limits.{key})",
            field=path,
            given=given,
            limit=limit,
        )
