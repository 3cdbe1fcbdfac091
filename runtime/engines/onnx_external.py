"""Which tensors of an ONNX file lie in another file, read from its bytes without the onnx package.

ONNX lets a tensor name a file (https://onnx.ai/onnx/repo-docs/ExternalData.html), and ONNX Runtime opens what it
finds under that name in the working directory. A bundle may name one file only, its own shared weights, and only
for initializers of the main graph. So the reader looks at every place where a tensor may be, subgraphs, functions
and attributes included, and refuses what is anywhere else. It follows the wire format of protocol buffers
(https://protobuf.dev/programming-guides/encoding/), knows the fields that lead to tensors, and skips the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Messages inside messages, as onnx.proto numbers them: where tensors can be.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_INITIALIZER = ("model", "graph", "tensor")
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 64


class MalformedModel(ValueError):
    """The bytes are not a model, or a tensor lies where none may; the message says which."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field's number, and its bytes; of numbers the value."""

    number: int
    content: memoryview
    value: int


def external_initializers(model: bytes, file: str) -> tuple[str, ...]:
    """Names of the initializers of a model's main graph that lie in `file`.

    Raises:
        MalformedModel: a tensor lies in another file, or in `file` without being such an initializer.
    """
    return tuple(_external(memoryview(model), ("model",), file))


def _external(message: memoryview, path: tuple[str, ...], file: str) -> Iterator[str]:
    if len(path) > _DEEPEST:
        raise MalformedModel(f"it is nested more than {_DEEPEST} deep")
    if path[-1] == "tensor":
        yield from _tensor(message, path, file)
        return
    inside = _INSIDE[path[-1]]
    for field in _fields(message):
        if field.number in inside and field.content:
            yield from _external(field.content, (*path, inside[field.number]), file)


def _tensor(message: memoryview, path: tuple[str, ...], file: str) -> Iterator[str]:
    name, outside, locations = "", False, list[str]()
    for field in _fields(message):
        if field.number == _NAME:
            name = _text(field.content)
        elif field.number == _DATA_LOCATION:
            outside = outside or field.value != 0
        elif field.number == _EXTERNAL_DATA:
            entry = {inner.number: _text(inner.content) for inner in _fields(field.content)}
            outside = True
            if entry.get(_KEY) == "location":
                locations.append(entry.get(_VALUE, ""))
    if not outside:
        return
    if set(locations) != {file} or path != _INITIALIZER:
        raise MalformedModel(f"tensor {name!r} lies in {locations}; only initializers may, and only in {file!r}")
    yield name


def _fields(message: memoryview) -> Iterator[_Field]:
    at, none = 0, message[:0]
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield _Field(number, none, value)
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise MalformedModel(f"field {number} has wire type {kind}")
        if size > len(message) - at:
            raise MalformedModel(f"field {number} ends after its message")
        yield _Field(number, message[at : at + size] if kind == _BYTES else none, 0)
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise MalformedModel("a number does not end")


def _text(content: memoryview) -> str:
    return bytes(content).decode("utf-8", "replace")
