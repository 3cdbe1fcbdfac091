"""Arrays survive the wire bit for bit, and nothing malformed gets past the checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.rpc import tensors

TYPED = sorted(name for name, (_, field) in tensors.DATATYPES.items() if field)


def arrays(datatype: str) -> st.SearchStrategy[np.ndarray[Any, np.dtype[Any]]]:
    dtype = tensors.DATATYPES[datatype][0].newbyteorder("=")
    texts = st.binary(max_size=9) if datatype == "BYTES" else None
    return hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=5), elements=texts)


@pytest.mark.parametrize("datatype", sorted(tensors.DATATYPES))
@given(data=st.data())
def test_raw_round_trip_keeps_every_bit(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    back = tensors.from_raw("x", tensors.datatype_of(array), array.shape, tensors.to_raw(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    if datatype == "BYTES":
        assert back.tolist() == array.tolist()
    else:
        assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("datatype", TYPED)
@given(data=st.data())
def test_typed_round_trip_keeps_every_value(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    wire = oip.InferTensorContents.FromString(tensors.to_typed(array).SerializeToString())
    back = tensors.from_typed("x", tensors.datatype_of(array), array.shape, wire)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_big_endian_arrays_are_sent_little_endian() -> None:
    array = np.array([1.5, -2.0], ">f4")
    assert tensors.datatype_of(array) == "FP32"
    assert tensors.to_raw(array) == array.astype("<f4").tobytes()


def test_decoded_arrays_cannot_be_written() -> None:
    back = tensors.from_raw("x", "FP32", (2,), bytes(8))
    assert not back.flags.writeable


@pytest.mark.parametrize(
    ("datatype", "shape", "size", "reason"),
    [
        ("FP32", (2, 3), 23, "BYTE_LENGTH_MISMATCH"),
        ("FP32", (2, 3), 25, "BYTE_LENGTH_MISMATCH"),
        ("FP32", (2, 3), 0, "BYTE_LENGTH_MISMATCH"),
        ("FP32", (-1, 3), 12, "SHAPE_INVALID"),
        ("FP32", (0, 3), 0, "SHAPE_INVALID"),
        ("FP32", (2**31, 1), 4, "SHAPE_INVALID"),
        ("FP32", (2**62, 2**62, 4), 0, "SHAPE_INVALID"),
        ("FP32", (2**31 - 1,) * 16, 4, "BYTE_LENGTH_MISMATCH"),
        ("FP32", (1,) * 17, 4, "SHAPE_INVALID"),
        ("FLOAT", (1,), 4, "DATATYPE_UNKNOWN"),
        ("BF16", (2, 3), 11, "BYTE_LENGTH_MISMATCH"),
        ("", (1,), 4, "DATATYPE_UNKNOWN"),
    ],
)
def test_malformed_raw_tensors_are_refused(datatype: str, shape: tuple[int, ...], size: int, reason: str) -> None:
    with pytest.raises(InvalidArgument, match="tensor 'image'") as caught:
        tensors.from_raw("image", datatype, shape, bytes(size))
    assert caught.value.reason == reason
    assert caught.value.metadata["tensor"] == "image"


@pytest.mark.parametrize(
    ("blob", "given"),
    [
        (b"", 0),
        (b"\x01\x00\x00", 0),
        (b"\x01\x00\x00\x00", 0),
        (b"\x01\x00\x00\x00a", 1),
        (b"\x01\x00\x00\x00a" * 3, 2),
        (b"\x01\x00\x00\x00a" * 2 + b"\x00", 2),
        (b"\x01\x00\x00\x00a\xff\xff\xff\xffb", 1),
    ],
)
def test_malformed_bytes_elements_are_refused(blob: bytes, given: int) -> None:
    with pytest.raises(InvalidArgument, match="needs 2 elements") as caught:
        tensors.from_raw("x", "BYTES", (1, 2), blob)
    assert caught.value.reason == "BYTE_LENGTH_MISMATCH"
    assert caught.value.metadata["given"] == str(given)


def test_bool_bytes_other_than_0_and_1_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="BOOL byte") as caught:
        tensors.from_raw("mask", "BOOL", (3,), b"\x00\x01\x02")
    assert caught.value.reason == "VALUE_OUT_OF_RANGE"


@pytest.mark.parametrize(
    ("datatype", "contents", "reason"),
    [
        ("FP32", {"fp32_contents": [1.0]}, "ELEMENT_COUNT_MISMATCH"),
        ("FP32", {}, "ELEMENT_COUNT_MISMATCH"),
        ("FP32", {"fp64_contents": [1.0, 2.0]}, "CONTENTS_UNSUPPORTED"),
        ("FP32", {"fp32_contents": [1.0, 2.0], "int_contents": [1]}, "CONTENTS_UNSUPPORTED"),
        ("FP16", {"fp32_contents": [1.0, 2.0]}, "CONTENTS_UNSUPPORTED"),
        ("BF16", {"fp32_contents": [1.0, 2.0]}, "CONTENTS_UNSUPPORTED"),
        ("BYTES", {"bytes_contents": [b"a"]}, "ELEMENT_COUNT_MISMATCH"),
        ("BYTES", {"int_contents": [1, 2]}, "CONTENTS_UNSUPPORTED"),
        ("INT8", {"int_contents": [1, 128]}, "VALUE_OUT_OF_RANGE"),
        ("INT16", {"int_contents": [-32769, 1]}, "VALUE_OUT_OF_RANGE"),
        ("UINT8", {"uint_contents": [1, 256]}, "VALUE_OUT_OF_RANGE"),
    ],
)
def test_malformed_typed_tensors_are_refused(datatype: str, contents: dict[str, list[float]], reason: str) -> None:
    with pytest.raises(InvalidArgument, match="tensor 'x'") as caught:
        tensors.from_typed("x", datatype, (2,), oip.InferTensorContents(**contents))  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_dtypes_without_a_datatype_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="complex64"):
        tensors.datatype_of(np.zeros(2, np.complex64))
