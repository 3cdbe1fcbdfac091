"""Tensors of the Open Inference Protocol <-> NumPy arrays.

Raw contents are row-major, little-endian and unpadded, BOOL as one byte, each BYTES element behind its length in four
bytes; typed contents lie in the one field of `InferTensorContents` that belongs to the datatype. Sizes are checked
before anything is read. BF16 becomes `datatypes.BF16`, BYTES an array of `bytes` objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.datatypes import BYTES
from acclimate.runtime.errors import InvalidArgument

# Datatype -> (little-endian dtype on the wire, field of typed contents; FP16 and BF16 have none).
DATATYPES: dict[str, tuple[np.dtype[Any], str]] = {
    "BOOL": (np.dtype("?"), "bool_contents"),
    "INT8": (np.dtype("i1"), "int_contents"),
    "INT16": (np.dtype("<i2"), "int_contents"),
    "INT32": (np.dtype("<i4"), "int_contents"),
    "INT64": (np.dtype("<i8"), "int64_contents"),
    "UINT8": (np.dtype("u1"), "uint_contents"),
    "UINT16": (np.dtype("<u2"), "uint_contents"),
    "UINT32": (np.dtype("<u4"), "uint_contents"),
    "UINT64": (np.dtype("<u8"), "uint64_contents"),
    "FP16": (np.dtype("<f2"), ""),
    "FP32": (np.dtype("<f4"), "fp32_contents"),
    "FP64": (np.dtype("<f8"), "fp64_contents"),
    "BF16": (np.dtype([("bf16", "<u2")]), ""),
    "BYTES": (BYTES, "bytes_contents"),
}
NATIVE = {name: dtype.newbyteorder("=") for name, (dtype, _) in DATATYPES.items()}
CONTENT_FIELDS = tuple(field.name for field in oip.InferTensorContents.DESCRIPTOR.fields)
MAX_RANK = 16
MAX_DIMENSION = 2**31 - 1
LENGTH_BYTES = 4


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name of an array's dtype.

    Raises:
        InvalidArgument: the dtype has none, for instance complex numbers or objects.
    """
    return _datatype(array.dtype)


@lru_cache(maxsize=64)
def _datatype(own: np.dtype[Any]) -> str:
    wanted = own.newbyteorder("<") if own.itemsize > 1 else own
    for name, (dtype, _) in DATATYPES.items():
        if dtype == wanted:
            return name
    raise InvalidArgument(
        "DATATYPE_UNKNOWN",
        f"an array of {own} has no Open Inference datatype; convert it to one of {list(DATATYPES)}",
        datatype=own,
    )


def checked(name: str, datatype: str, shape: Sequence[int]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The wire dtype and the shape of a tensor, once both are known to be sane.

    Raises:
        InvalidArgument: datatype unknown, too many dimensions, or a dimension outside 1 to 2^31 - 1.
    """
    if datatype not in DATATYPES:
        raise InvalidArgument(
            "DATATYPE_UNKNOWN",
            f"tensor {_short(name)!r} has datatype {_short(datatype)!r}; use one of {', '.join(DATATYPES)}",
            field="datatype",
            tensor=name,
            datatype=datatype,
        )
    if len(shape) > MAX_RANK:
        raise InvalidArgument(
            "SHAPE_INVALID",
            f"tensor {_short(name)!r} has {len(shape)} dimensions; at most {MAX_RANK} are accepted",
            field="shape",
            tensor=name,
            rank=len(shape),
        )
    for size in shape:
        if not 1 <= size <= MAX_DIMENSION:
            raise InvalidArgument(
                "SHAPE_INVALID",
                f"tensor {_short(name)!r} has shape {list(shape)}; dimensions must be 1 to {MAX_DIMENSION}",
                field="shape",
                tensor=name,
                dimension=size,
            )
    return DATATYPES[datatype][0], tuple(shape)


def from_raw(name: str, datatype: str, shape: Sequence[int], blob: bytes) -> NDArray[Any]:
    """A read-only array over `blob`.

    Raises:
        InvalidArgument: see `checked`; or the blob's length is not what shape and datatype need.
    """
    dtype, dimensions = checked(name, datatype, shape)
    if dtype == BYTES:
        return _elements(name, dimensions, blob)
    needed = math.prod(dimensions) * dtype.itemsize
    if len(blob) != needed:
        raise InvalidArgument(
            "BYTE_LENGTH_MISMATCH",
            f"tensor {_short(name)!r} of shape {list(dimensions)} and datatype {datatype} needs {needed} "
            f"bytes; its raw contents have {len(blob)}",
            field="raw_input_contents",
            tensor=name,
            expected=needed,
            given=len(blob),
        )
    if datatype == "BOOL" and (np.frombuffer(blob, np.uint8) > 1).any():
        raise InvalidArgument(
            "VALUE_OUT_OF_RANGE",
            f"tensor {_short(name)!r} holds a BOOL byte other than 0 and 1; send one byte of 0 or 1 each",
            field="raw_input_contents",
            tensor=name,
        )
    return np.frombuffer(blob, dtype).reshape(dimensions).astype(NATIVE[datatype], copy=False)


def from_typed(name: str, datatype: str, shape: Sequence[int], contents: oip.InferTensorContents) -> NDArray[Any]:
    """An array of the values in the field that belongs to `datatype`.

    Raises:
        InvalidArgument: see `checked`; values in another field, of another count or outside the datatype;
            FP16 and BF16.
    """
    dtype, dimensions = checked(name, datatype, shape)
    field = DATATYPES[datatype][1]
    if not field:
        raise InvalidArgument(
            "CONTENTS_UNSUPPORTED",
            f"tensor {_short(name)!r} is {datatype}, which typed contents cannot carry; use raw_input_contents",
            field="contents",
            tensor=name,
            datatype=datatype,
        )
    filled = [other for other in CONTENT_FIELDS if other != field and len(getattr(contents, other))]
    if filled:
        raise InvalidArgument(
            "CONTENTS_UNSUPPORTED",
            f"tensor {_short(name)!r} is {datatype} but carries {filled[0]}; put its values into {field}",
            field=f"contents.{filled[0]}",
            tensor=name,
            expected=field,
        )
    values = getattr(contents, field)
    needed = math.prod(dimensions)
    if len(values) != needed:
        raise InvalidArgument(
            "ELEMENT_COUNT_MISMATCH",
            f"tensor {_short(name)!r} of shape {list(dimensions)} needs {needed} values; {field} has {len(values)}",
            field=f"contents.{field}",
            tensor=name,
            expected=needed,
            given=len(values),
        )
    return _within(name, datatype, field, values, dtype).reshape(dimensions)


def to_raw(array: NDArray[Any]) -> bytes:
    """Row-major little-endian bytes of an array."""
    wire, _ = DATATYPES[datatype_of(array)]
    if wire == BYTES:
        return b"".join(len(value).to_bytes(LENGTH_BYTES, "little") + value for value in array.reshape(-1))
    return array.astype(wire, copy=False).tobytes()


def has_typed_field(array: NDArray[Any]) -> bool:
    """Whether typed contents can carry the array: all but FP16 and BF16."""
    return bool(DATATYPES[datatype_of(array)][1])


def to_typed(array: NDArray[Any]) -> oip.InferTensorContents:
    """Typed contents of an array that `has_typed_field`."""
    field = DATATYPES[datatype_of(array)][1]
    contents = oip.InferTensorContents()
    getattr(contents, field).extend(array.reshape(-1).tolist())
    return contents


def _elements(name: str, dimensions: tuple[int, ...], blob: bytes) -> NDArray[Any]:
    """BYTES: each element behind its length, a little-endian uint32."""
    values: list[bytes] = []
    at, count = 0, math.prod(dimensions)
    while at < len(blob):
        length = int.from_bytes(blob[at : at + LENGTH_BYTES], "little")
        start = at + LENGTH_BYTES
        if start + length > len(blob) or len(values) == count:
            break
        values.append(blob[start : start + length])
        at = start + length
    if at != len(blob) or len(values) != count:
        raise InvalidArgument(
            "BYTE_LENGTH_MISMATCH",
            f"tensor {_short(name)!r} of shape {list(dimensions)} and datatype BYTES needs {count} elements, each "
            f"behind its length in 4 bytes; its raw contents hold {len(values)}, and {len(blob) - at} bytes more",
            field="raw_input_contents",
            tensor=name,
            expected=count,
            given=len(values),
        )
    return _objects(values, dimensions)


def _objects(values: Sequence[bytes], dimensions: tuple[int, ...]) -> NDArray[Any]:
    array = np.empty(len(values), BYTES)
    array[:] = values
    return array.reshape(dimensions)


def _within(name: str, datatype: str, field: str, values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == BYTES:
        return _objects(values, (len(values),))
    native = dtype.newbyteorder("=")
    if field not in ("int_contents", "uint_contents"):
        return np.fromiter(values, native, len(values))
    wide = np.fromiter(values, np.int64, len(values))
    limits = np.iinfo(native)
    if wide.size and (wide.min() < limits.min or wide.max() > limits.max):
        raise InvalidArgument(
            "VALUE_OUT_OF_RANGE",
            f"tensor {_short(name)!r} holds a value outside {datatype}, {limits.min} to {limits.max}",
            field=f"contents.{field}",
            tensor=name,
            datatype=datatype,
        )
    return wide.astype(native)


def _short(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."
