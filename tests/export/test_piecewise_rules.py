"""Backward rules of rectifiers, extrema and reductions against torch autograd in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from acclimate.export.errors import UnsupportedModel
from tests.export.test_backward_rules import FEW, ROWS, Function, check, normal

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
SHAPE = (ROWS, 3, 4, 5)
ALONE: dict[str, tuple[Function, dict[str, Any]]] = {
    "Abs": (torch.abs, {}),
    "LeakyRelu": (lambda x: functional.leaky_relu(x, 0.2), {"alpha": 0.2}),
    "Elu": (lambda x: functional.elu(x, 0.7), {"alpha": 0.7}),
    "Celu": (lambda x: functional.celu(x, 0.7), {"alpha": 0.7}),
    "Selu": (functional.selu, {}),
    "ThresholdedRelu": (lambda x: functional.threshold(x, 0.3, 0.0), {"alpha": 0.3}),
    "Softplus": (functional.softplus, {}),
    "Softsign": (functional.softsign, {}),
    "Mish": (functional.mish, {}),
    "Sin": (torch.sin, {}),
    "Cos": (torch.cos, {}),
    "LogSoftmax": (lambda x: torch.log_softmax(x, -1), {"axis": -1}),
    "Cast": (lambda x: x, {"to": 1}),
}
REDUCED: dict[str, Function] = {
    "ReduceL1": lambda x, axes, keep: torch.linalg.vector_norm(x, 1, axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: torch.amax(x, axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: torch.amin(x, axes, keepdim=keep),
}
OWN_TESTS = {"PRelu", "Max", "Min", "Sum", "Mean", "GlobalMaxPool", "LpNormalization", "CumSum", "CastLike"}


@FEW
@given(op=st.sampled_from(sorted(ALONE)), size=SIZES, scale=st.sampled_from([0.3, 1.0, 5.0]))
def test_of_one_tensor(op: str, size: tuple[int, ...], scale: float) -> None:
    function, attributes = ALONE[op]
    check(op, function, [np.clip(scale * normal(ROWS, *size), -8, 4)], [], **attributes)


@pytest.mark.parametrize("op", sorted(ALONE))
def test_each_of_one_tensor(op: str) -> None:
    function, attributes = ALONE[op]
    check(op, function, [2 * normal(*SHAPE)], [], **attributes)


def test_casts_follow_the_other_tensor() -> None:
    check("CastLike", lambda x: x, [normal(*SHAPE)], [np.zeros(1, np.float32)])


@FEW
@given(size=SIZES, shared=st.booleans())
def test_prelu(size: tuple[int, ...], shared: bool) -> None:
    slope = np.abs(normal(*([1] * len(size) if shared else [size[0], 1, 1])))

    def expected(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * torch.from_numpy(slope).double())

    check("PRelu", expected, [normal(ROWS, *size)], [slope])


def test_prelu_gives_its_slope_what_lies_below_zero() -> None:
    check("PRelu", lambda x, a: torch.where(x > 0, x, x * a), [normal(*SHAPE), normal(ROWS, 3, 1, 1)], [])


@pytest.mark.parametrize(("op", "function"), [("Max", torch.maximum), ("Min", torch.minimum)])
@pytest.mark.parametrize("right", [(3, 4, 5), (3, 1, 1)])
def test_the_larger_and_the_smaller_of_two(op: str, function: Function, right: tuple[int, ...]) -> None:
    check(op, function, [normal(*SHAPE), 0.5 * normal(ROWS, *right)], [])
    bound = np.array(0.2, np.float32)
    check(op, lambda x: function(x, torch.tensor(0.2).double()), [normal(*SHAPE)], [bound])


def test_equal_ones_share_the_gradient() -> None:
    same = np.round(normal(*SHAPE))
    other = np.round(normal(*SHAPE[::-1])).reshape(SHAPE)
    check("Max", torch.maximum, [same, other], [])
    check("ReduceMax", lambda x: torch.amax(x, (2, 3)), [same], [np.array([2, 3])], keepdims=0)


@pytest.mark.parametrize(("op", "function"), [("Sum", torch.sum), ("Mean", torch.mean)])
def test_of_three_tensors(op: str, function: Function) -> None:
    shapes = [(3, 4, 5), (1, 4, 1), (3, 1, 5)]

    def expected(*tensors: Tensor) -> Tensor:
        return function(torch.stack(torch.broadcast_tensors(*tensors)), 0)

    check(op, expected, [normal(ROWS, *shape) for shape in shapes], [])


@FEW
@given(
    op=st.sampled_from(sorted(REDUCED)),
    axes=st.sampled_from([(2, 3), (-1,), (1, 3), (1, 2, 3)]),
    keepdims=st.booleans(),
    size=SIZES,
)
def test_reductions(op: str, axes: tuple[int, ...], keepdims: bool, size: tuple[int, ...]) -> None:
    def expected(x: Tensor) -> Tensor:
        result: Tensor = REDUCED[op](x, axes, keepdims)
        return result

    check(op, expected, [normal(ROWS, *size)], [np.array(axes)], keepdims=int(keepdims))


def test_a_norm_of_zeros_has_no_gradient() -> None:
    x = normal(*SHAPE)
    x[0, 1] = 0
    check("ReduceL2", lambda t: torch.linalg.vector_norm(t, 2, (2, 3)), [x], [np.array([2, 3])], keepdims=0)


def test_reductions_of_the_batch_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="reduces the batch"):
        check("ReduceMax", lambda x: torch.amax(x, 0, keepdim=True), [normal(*SHAPE)], [np.array([0])])


@pytest.mark.parametrize("flat", [True, False])
def test_global_max_pool(flat: bool) -> None:
    axes = (2,) if flat else (2, 3)
    check("GlobalMaxPool", lambda x: torch.amax(x, axes, keepdim=True), [normal(*SHAPE[: 3 if flat else 4])], [])


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("axis", [1, -1])
def test_lp_normalization(power: int, axis: int) -> None:
    def expected(x: Tensor) -> Tensor:
        return functional.normalize(x, float(power), axis)

    check("LpNormalization", expected, [normal(*SHAPE)], [], p=power, axis=axis)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumulative_sum(exclusive: int, reverse: int) -> None:
    def expected(x: Tensor) -> Tensor:
        turned = x.flip(2) if reverse else x
        running = turned.cumsum(2) - (turned if exclusive else 0)
        return running.flip(2) if reverse else running

    check("CumSum", expected, [normal(*SHAPE)], [np.array(2)], exclusive=exclusive, reverse=reverse)
