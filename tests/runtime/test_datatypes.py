"""Which datatypes an input takes, and what becomes of FP16 and BF16 on the way."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from acclimate.runtime.datatypes import BF16, DTYPES, SENT, accepted, name_of, widened
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import InvalidArgument
from tests.runtime.serving import predict, serving


def bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32 values."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BF16)


def test_every_bfloat16_is_widened_to_the_float_it_is() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    wide = widened(bits.view(BF16), "FP32")
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide.view(np.uint32), bits.astype(np.uint32) << 16)


def test_every_half_is_widened_to_the_float_it_is() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(widened(halves, "FP32"), halves.astype(np.float32))


def test_other_inputs_take_their_own_datatype_alone() -> None:
    assert accepted("FP32") == ("FP32", "FP16", "BF16")
    assert all(accepted(name) == (name,) for name in DTYPES if name != "FP32")
    assert [name_of(np.zeros(1, dtype)) for dtype in SENT.values()] == list(SENT)


async def _answers() -> None:
    engine = reference_engine()
    values = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float16)
    async with serving(engine=engine) as service:
        half = await predict(service, values)
        np.testing.assert_array_equal(half.outputs["logits"], engine.frozen(values.astype(np.float32)))
        brain = await predict(service, bf16(values))
        exact = (bf16(values).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(brain.outputs["logits"], engine.frozen(exact))
        for tensor in (values.astype(np.float64), np.full((4, 8), b"1", object)):
            with pytest.raises(InvalidArgument, match="FP32 or FP16 or BF16") as refused:
                await predict(service, tensor)
            assert refused.value.reason == "DATATYPE_MISMATCH"
        for infinite in (np.full((1, 8), np.inf, np.float16), bf16(np.full((1, 8), np.nan))):
            with pytest.raises(InvalidArgument) as refused:
                await predict(service, infinite)
            assert refused.value.reason == "VALUE_NOT_FINITE"


def test_a_float_input_takes_what_it_can_hold() -> None:
    asyncio.run(_answers())
