"""Backward rules of attention, norms and smooth activations against torch autograd in float64."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from acclimate.export.backward.rules import RULES
from acclimate.export.errors import UnsupportedModel
from tests.export import test_backward_rules as convolutional
from tests.export import test_piecewise_rules, test_position_rules
from tests.export.test_backward_rules import FEW, ROWS, Function, check, normal
from tests.house.tree import ROOT

SHAPE = (ROWS, 3, 4, 5)
SMOOTH: dict[str, tuple[Function, dict[str, Any]]] = {
    "Erf": (torch.erf, {}),
    "Exp": (torch.exp, {}),
    "Gelu": (functional.gelu, {}),
    "HardSigmoid": (lambda x: torch.clamp(0.3 * x + 0.4, 0, 1), {"alpha": 0.3, "beta": 0.4}),
    "HardSwish": (functional.hardswish, {}),
    "Identity": (lambda x: x, {}),
    "Softmax": (lambda x: torch.softmax(x, -1), {"axis": -1}),
}
POSITIVE: dict[str, Function] = {"Log": torch.log, "Sqrt": torch.sqrt, "Reciprocal": torch.reciprocal}
OWN_TESTS = {
    "BatchNormalization",
    "Expand",
    "InstanceNormalization",
    "LayerNormalization",
    "Pow",
    "ReduceSum",
    "Where",
}
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))


@FEW
@given(op=st.sampled_from(sorted(SMOOTH)), size=SIZES, scale=st.sampled_from([0.3, 1.0, 5.0]))
def test_smooth(op: str, size: tuple[int, ...], scale: float) -> None:
    function, attributes = SMOOTH[op]
    check(op, function, [np.clip(scale * normal(ROWS, *size), -8, 4)], [], **attributes)


def test_gelu_in_its_tanh_form() -> None:
    check("Gelu", lambda x: functional.gelu(x, approximate="tanh"), [2 * normal(*SHAPE)], [], approximate="tanh")


@FEW
@given(op=st.sampled_from(sorted(POSITIVE)), size=SIZES)
def test_of_positive_numbers(op: str, size: tuple[int, ...]) -> None:
    check(op, POSITIVE[op], [0.2 + np.abs(normal(ROWS, *size))], [])


@FEW
@given(exponent=st.sampled_from([-0.5, 0.5, 2.0, 3.0]), size=SIZES)
def test_pow(exponent: float, size: tuple[int, ...]) -> None:
    x = 0.2 + np.abs(normal(ROWS, *size))
    check("Pow", lambda t: t**exponent, [x], [np.array(exponent, np.float32)])


def test_pow_by_several_exponents() -> None:
    powers = [2.0, 3.0]
    check("Pow", lambda t: t ** torch.tensor(powers), [1 + normal(ROWS, 2) ** 2], [np.array(powers, np.float32)])


def test_pow_by_an_activation_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="exponent is computed"):
        check("Pow", torch.pow, [1 + normal(ROWS, 2) ** 2, normal(ROWS, 2)], [])


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_softmax_along_any_axis(axis: int) -> None:
    check("Softmax", lambda x: torch.softmax(x, axis), [3 * normal(*SHAPE)], [], axis=axis)


@FEW
@given(
    stack=st.sampled_from([((), ()), ((2,), (2,)), ((2,), (1,)), ((1, 3), (2, 1))]),
    m=st.integers(1, 4),
    k=st.integers(1, 4),
    n=st.integers(1, 4),
)
def test_matmul_of_two_activations(stack: tuple[tuple[int, ...], tuple[int, ...]], m: int, k: int, n: int) -> None:
    left, right = stack
    check("MatMul", torch.matmul, [normal(ROWS, *left, m, k), normal(ROWS, *right, k, n)], [])


def test_matmul_with_a_vector_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="vectors"):
        check("MatMul", lambda x: x @ torch.ones(4).double(), [normal(ROWS, 3, 4)], [np.ones(4, np.float32)])


@FEW
@given(size=SIZES, affine=st.booleans())
def test_layer_norm(size: tuple[int, ...], affine: bool) -> None:
    width = size[-1] + 2
    gain, shift = (normal(width), normal(width + 1)[1:]) if affine else (np.ones(width, np.float32), None)
    both = [torch.from_numpy(gain).double(), None if shift is None else torch.from_numpy(shift).double()]

    def expected(x: Tensor) -> Tensor:
        return functional.layer_norm(x, (width,), both[0], both[1], 1e-3)

    constants = [gain] if shift is None else [gain, shift]
    check("LayerNormalization", expected, [normal(ROWS, *size[:-1], width)], constants, axis=-1, epsilon=1e-3)


@FEW
@given(channels=st.integers(1, 4), height=st.integers(2, 5), flat=st.booleans())
def test_instance_norm(channels: int, height: int, flat: bool) -> None:
    gain, shift = normal(channels), normal(channels + 1)[1:]
    shape = (ROWS, channels, height) if flat else (ROWS, channels, height, 3)

    def expected(x: Tensor) -> Tensor:
        weight, bias = torch.from_numpy(gain).double(), torch.from_numpy(shift).double()
        return functional.instance_norm(x, weight=weight, bias=bias, eps=1e-3)

    check("InstanceNormalization", expected, [normal(*shape)], [gain, shift], epsilon=1e-3)


def test_frozen_batch_norm() -> None:
    gain, shift, mean, var = normal(3), normal(4)[1:], normal(5)[2:], 0.5 + np.abs(normal(6)[3:])

    def expected(x: Tensor) -> Tensor:
        frozen = [torch.from_numpy(a).double() for a in (mean, var, gain, shift)]
        return functional.batch_norm(x, frozen[0], frozen[1], frozen[2], frozen[3], eps=1e-3)

    check("BatchNormalization", expected, [normal(*SHAPE)], [gain, shift, mean, var], epsilon=1e-3)


@pytest.mark.parametrize(("axes", "keepdims"), [([2, 3], 1), ([-1], 0), ([1, 3], 0)])
def test_reduce_sum(axes: list[int], keepdims: int) -> None:
    check(
        "ReduceSum",
        lambda x: x.sum(axes, keepdim=bool(keepdims)),
        [normal(*SHAPE)],
        [np.array(axes)],
        keepdims=keepdims,
    )


def test_expand() -> None:
    check("Expand", lambda x: x.expand(ROWS, 3, 4, 5), [normal(ROWS, 3, 1, 5)], [np.array([1, 3, 4, 5])])


@pytest.mark.parametrize("taken", [True, False])
def test_where(taken: bool) -> None:
    """Through a condition that is a constant here, as a mask is in an attention."""
    mask = (np.arange(20).reshape(1, 4, 5) % 3 == 0) == taken
    other = np.array(-7.0, np.float32)
    _check_where(mask, other)


def _check_where(mask: np.ndarray, other: np.ndarray) -> None:
    from acclimate.export.backward.tape import Tape
    from acclimate.export.graph import BATCH, Graph, Node, Value
    from acclimate.export.session import run, session

    x, grad = normal(*SHAPE), normal(*SHAPE[::-1]).reshape(SHAPE)
    graph = Graph()
    for name in ("x", "g"):
        graph.inputs[name] = graph.values[name] = Value(np.dtype(np.float32), (BATCH, *SHAPE[1:]))
    graph.values["y"] = graph.values["x"]
    node = Node("Where", (graph.constant(mask), "x", graph.constant(other)), ("y",))
    graph.nodes.append(node)
    found = RULES["Where"](node, "g", Tape(graph, frozenset({"x", "y"})))
    graph.outputs = {"y": graph.values["y"], found[1]: graph.values["x"]}
    got = run(session(graph), {"x": x, "g": grad})
    np.testing.assert_array_equal(got["y"], np.where(mask, x, other))
    np.testing.assert_array_equal(got[found[1]], np.where(mask, grad, 0))


def test_every_rule_is_tested() -> None:
    convolutions = convolutional.OWN_TESTS | set(convolutional.UNARY) | set(convolutional.BINARY)
    piecewise = test_piecewise_rules.OWN_TESTS | set(test_piecewise_rules.ALONE) | set(test_piecewise_rules.REDUCED)
    moved = test_position_rules.OWN_TESTS
    assert convolutions | piecewise | moved | OWN_TESTS | set(SMOOTH) | set(POSITIVE) == set(RULES)


def test_every_rule_is_documented() -> None:
    page = (ROOT / "docs" / "architectures.md").read_text("utf-8")
    assert [op for op in RULES if not re.search(rf"\b{op}\b", page)] == []
