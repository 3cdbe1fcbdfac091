"""Real messages turned into bad ones: bytes changed at random, or fields changed by what their descriptors say."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

# Structure is where a message begins; further in lie pixels.
HEAD = 200
NUMBERS = (0, 1, -1, 2, 255, 2**31 - 1, -(2**31), 2**32 - 1, 2**53, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-320, 3.4e38, 1.7e308, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", "-", "0", "digits", "models/-", "models/digits", "models/digits/sessions/shared", "models/digits/sessions/",
    "models/../..", "shared", "spared", "a/b", "../../etc/passwd", "\x00", "\u202e\u0000\uffff", "\U0001f600" * 40,
    "n" * 129, "n" * 600, "n" * 20_000, "%s%n", "UINT8", "FP32", "BYTES", "image", "tent", "auto", "acclimate_adapt",
    "sequence_id", "sequence_start", "classification", "shared_memory_region", "YQBiAGM=",
    "YWxpY2UAZGlnaXRzAHNoYXJlZA==",
)  # fmt: skip
# Names that exist, for the sender or for another, so that what follows the parsing is reached too.
NAMES = (
    "digits", "shared", "spared", "models/digits", "models/digits/sessions/shared", "models/digits/sessions/spared",
    "models/digits/sessions/new-shared", "models/-", "r0", "r4",
)  # fmt: skip
KEYS = (
    "sequence_id", "sequence_start", "sequence_end", "acclimate_adapt", "acclimate_recipe", "timeout", "priority", "lr",
    "batch_rows", "", "x" * 700,
)  # fmt: skip
INTEGERS = {
    FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_ENUM,
}  # fmt: skip


def mutated(source: random.Random, payload: bytes, method: MethodDescriptor) -> bytes:
    """The message with a few changes, made with `source`'s randomness alone; most still parse, and get further in."""
    change = _fields if source.random() < 0.75 else _bytes
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        payload = change(source, payload, method)
    return payload


def _bytes(source: random.Random, payload: bytes, _: MethodDescriptor) -> bytes:
    data = bytearray(payload)
    at = source.randint(0, min(HEAD, len(data)))
    match source.randrange(7):
        case 0 if at < len(data):
            data[at] ^= 1 << source.randrange(8)
        case 1 if at < len(data):
            data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
        case 2:
            del data[at : at + source.randint(1, 64)]
        case 3:
            data[at:at] = source.randbytes(source.randint(1, 16))
        case 4:
            data[at:at] = data[at : at + 32]
        case 5:
            data[at:at] = b"\xff" * source.randint(1, 10)
        case _:
            del data[at:]
    return bytes(data)


def _fields(source: random.Random, payload: bytes, method: MethodDescriptor) -> bytes:
    kind: Any = GetMessageClass(method.input_type)
    try:
        message = kind.FromString(payload)
    except DecodeError:
        return _bytes(source, payload, method)
    _change(source, message, depth=0)
    data: bytes = message.SerializeToString()
    return data


def _change(source: random.Random, message: Any, depth: int) -> None:
    fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = source.choice(fields)
    if source.random() < 0.1:
        message.ClearField(field.name)
    elif _is_map(field):
        _change_map(source, message, field)
    elif isinstance(getattr(message, field.name), Message):
        if depth < 6:
            _change(source, getattr(message, field.name), depth + 1)
            getattr(message, field.name).SetInParent()
    elif hasattr(getattr(message, field.name), "extend"):
        _change_list(source, getattr(message, field.name), field, depth)
    else:
        setattr(message, field.name, _scalar(source, field))


def _change_list(source: random.Random, values: Any, field: FieldDescriptor, depth: int) -> None:
    nested = field.type == FieldDescriptor.TYPE_MESSAGE
    match source.randrange(4):
        case 0 if len(values):
            del values[source.randrange(len(values)) :]
        case 1 if len(values):
            values.extend([values[0]] * source.choice((1, 2, 30, 1100)))
        case 2 if len(values) and nested and depth < 6:
            _change(source, source.choice(values), depth + 1)
        case 2 if len(values) and not nested:
            values[source.randrange(len(values))] = _scalar(source, field)
        case _:
            if nested:
                values.add()
            else:
                values.append(_scalar(source, field))


def _change_map(source: random.Random, message: Any, field: FieldDescriptor) -> None:
    values, kind = getattr(message, field.name), _value_of(field)
    key = source.choice(KEYS)
    if kind.type == FieldDescriptor.TYPE_MESSAGE:
        _change(source, values[key], 5)
    else:
        values[key] = _scalar(source, kind)
    if source.random() < 0.05:
        for n in range(100):
            if kind.type == FieldDescriptor.TYPE_MESSAGE:
                _ = values[f"k{n}"]
            else:
                values[f"k{n}"] = _scalar(source, kind)


def _scalar(source: random.Random, field: FieldDescriptor) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return source.choice(NAMES if source.random() < 0.4 else TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return source.randbytes(source.choice((0, 1, 31, 32, 1568, 5000)))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return source.random() < 0.5
    if field.type in INTEGERS:
        wide = field.type in {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_UINT64}
        unsigned = field.type in {FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64}
        low, high = (0, 2**64 if wide else 2**32) if unsigned else (-(2**63), 2**63) if wide else (-(2**31), 2**31)
        return source.choice([number for number in NUMBERS if low <= number < high])
    return source.choice(FLOATS)


def _is_map(field: FieldDescriptor) -> bool:
    kind: Any = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def _value_of(field: FieldDescriptor) -> FieldDescriptor:
    kind: Any = field.message_type
    found: FieldDescriptor = kind.fields_by_name["value"]
    return found
