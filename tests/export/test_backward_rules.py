"""Every backward rule against torch autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from acclimate.export.backward.rules import RULES
from acclimate.export.backward.tape import Tape
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Graph, Node, Value, pruned
from acclimate.export.session import run, session

ROWS = 2
FEW = settings(max_examples=25)
Function = Callable[..., Tensor]


def check(
    op: str,
    function: Function,
    inputs: list[np.ndarray],
    constants: list[np.ndarray],
    *,
    batched: bool = True,
    **attributes: Any,
) -> None:
    """Compare value and gradients of `op(*inputs, *constants)` with torch's `function(*inputs)`.

    The first axis of all activations is the batch unless `batched` says that all their sizes are known.
    """
    tensors = [torch.from_numpy(array).double().requires_grad_() for array in inputs]
    expected = function(*tensors)
    weights = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
    gradients = torch.autograd.grad(expected, tensors, torch.from_numpy(weights).double())
    graph = Graph()
    names = [f"x{i}" for i in range(len(inputs))]
    for name, array in (*zip(names, inputs, strict=True), ("g", weights)):
        first = BATCH if batched else len(array)
        graph.inputs[name] = graph.values[name] = Value(np.dtype(np.float32), (first, *array.shape[1:]))
    more = [graph.constant(array) for array in constants]
    node = Node(op, (*names, *more), ("y",), attributes)
    graph.nodes.append(node)
    graph.values["y"] = Value(np.dtype(np.float32), (BATCH if batched else len(expected), *expected.shape[1:]))
    found = RULES[op](node, "g", Tape(graph, frozenset({*names, "y"})))
    assert sorted(found) == list(range(len(inputs)))
    graph.outputs["y"] = graph.values["y"]
    for position, output in found.items():
        graph.outputs[output] = graph.values[output] = graph.values[names[position]]
    kept = pruned(graph)
    feeds = dict(zip(names, inputs, strict=True)) | {"g": weights}
    results = run(session(kept), {name: feeds[name] for name in kept.inputs if reads(kept, name)})
    np.testing.assert_allclose(results["y"], expected.detach().numpy(), rtol=2e-5, atol=2e-5)
    for position, output in found.items():
        np.testing.assert_allclose(results[output], gradients[position].numpy(), rtol=2e-4, atol=2e-5)


def reads(graph: Graph, name: str) -> bool:
    if name in graph.outputs or any(name in node.inputs for node in graph.nodes):
        return True
    del graph.inputs[name]
    return False


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


@FEW
@given(
    group=st.sampled_from([1, 2, 4]),
    outputs=st.integers(1, 3),
    inputs=st.integers(1, 3),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    biased=st.booleans(),
)
def test_conv(
    group: int,
    outputs: int,
    inputs: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    pads: tuple[int, int],
    dilation: int,
    biased: bool,
) -> None:
    weight = normal(group * outputs, inputs, *kernel)
    bias = [normal(group * outputs)] if biased else []
    check(
        "Conv",
        lambda x: functional.conv2d(
            x,
            torch.from_numpy(weight).double(),
            torch.from_numpy(bias[0]).double() if bias else None,
            stride,
            pads,
            dilation,
            group,
        ),
        [normal(ROWS, group * inputs, *size)],
        [weight, *bias],
        strides=[stride] * 2,
        pads=[*pads, *pads],
        dilations=[dilation] * 2,
        group=group,
    )


def test_conv_with_different_pads_on_each_side() -> None:
    weight = normal(3, 2, 3, 3)
    for stride in (1, 2):
        check(
            "Conv",
            lambda x, s=stride: functional.conv2d(
                functional.pad(x, (0, 2, 1, 0)), torch.from_numpy(weight).double(), None, s
            ),
            [normal(ROWS, 2, 7, 6)],
            [weight],
            strides=[stride] * 2,
            pads=[1, 0, 0, 2],
        )


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "VALID"])
def test_conv_refuses_automatic_pads(auto_pad: str) -> None:
    with pytest.raises(UnsupportedModel, match="auto_pad"):
        check("Conv", lambda x: x, [normal(ROWS, 1, 4, 4)], [normal(1, 1, 1, 1)], auto_pad=auto_pad)


OWN_TESTS = {"Conv", "ReduceMean", "AveragePool", "MaxPool", "Slice", "Concat", "Gemm", "MatMul"}
UNARY: dict[str, tuple[Function, dict[str, Any], list[np.ndarray]]] = {
    "Relu": (functional.relu, {}, []),
    "Sigmoid": (torch.sigmoid, {}, []),
    "Tanh": (torch.tanh, {}, []),
    "Neg": (torch.neg, {}, []),
    "Clip": (lambda x: torch.clamp(x, -0.5, 0.7), {}, [np.array(-0.5, np.float32), np.array(0.7, np.float32)]),
    "GlobalAveragePool": (lambda x: x.mean((2, 3), keepdim=True), {}, []),
    "Reshape": (lambda x: x.reshape(ROWS, -1), {}, [np.array([-1, 60])]),
    "Transpose": (lambda x: x.permute(0, 3, 1, 2), {"perm": [0, 3, 1, 2]}, []),
    "Pad": (lambda x: functional.pad(x, (1, 2, 0, 3, 2, 0)), {}, [np.array([0, 2, 0, 1, 0, 0, 3, 2])]),
}


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    function, attributes, constants = UNARY[op]
    check(op, function, [normal(ROWS, 3, 4, 5)], constants, **attributes)


BINARY: dict[str, Function] = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize(("left", "right"), [((3, 4, 5), (3, 4, 5)), ((3, 4, 5), (3, 1, 1)), ((1, 4, 1), (3, 1, 5))])
def test_binary_with_broadcasting(op: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    denominator = normal(ROWS, *right)
    check(op, BINARY[op], [normal(ROWS, *left), denominator + 2 * np.sign(denominator)], [])


@pytest.mark.parametrize("op", BINARY)
def test_binary_with_a_constant(op: str) -> None:
    constant = 1.5 + np.abs(normal(3, 1, 1))
    check(op, lambda x: BINARY[op](x, torch.from_numpy(constant).double()), [normal(ROWS, 3, 4, 5)], [constant])


@pytest.mark.parametrize(("axes", "keepdims"), [([2, 3], 1), ([-1], 0), ([1, 3], 0)])
def test_reduce_mean(axes: list[int], keepdims: int) -> None:
    check(
        "ReduceMean",
        lambda x: x.mean(axes, keepdim=bool(keepdims)),
        [normal(ROWS, 3, 4, 5)],
        [np.array(axes)],
        keepdims=keepdims,
    )


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(5, 3, 1), (6, 3, 2), (4, 2, 2)])
def test_average_pool_at_padded_edges(size: int, kernel: int, stride: int, counted: bool) -> None:
    check(
        "AveragePool",
        lambda x: functional.avg_pool2d(x, kernel, stride, 1, count_include_pad=counted),
        [normal(ROWS, 2, size, size)],
        [],
        count_include_pad=int(counted),
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[1] * 4,
    )


@FEW
@given(
    size=st.integers(4, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    counted=st.booleans(),
    op=st.sampled_from(["AveragePool", "MaxPool"]),
)
def test_pooling(size: int, kernel: int, stride: int, pad: int, counted: bool, op: str) -> None:
    assume(pad * 2 <= kernel)
    window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    data = [
        np.random.default_rng(size).permutation(ROWS * 2 * size * size).reshape(ROWS, 2, size, size).astype(np.float32)
    ]
    if op == "MaxPool":
        check(op, lambda x: functional.max_pool2d(x, kernel, stride, pad), data, [], **window)
    else:
        check(
            op,
            lambda x: functional.avg_pool2d(x, kernel, stride, pad, count_include_pad=counted),
            data,
            [],
            count_include_pad=int(counted),
            **window,
        )


@FEW
@given(
    starts=st.tuples(st.integers(0, 2), st.integers(-5, 2)),
    ends=st.tuples(st.integers(4, 9), st.integers(3, 6)),
    steps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_slice(starts: tuple[int, int], ends: tuple[int, int], steps: tuple[int, int]) -> None:
    x = normal(ROWS, 3, 7, 6)
    taken = x[:, :, starts[0] : ends[0] : steps[0], starts[1] : ends[1] : steps[1]]
    assume(taken.size)
    # torch has no negative starts with steps; the same range from the front is.
    begin = starts[1] % 6 if starts[1] < 0 else starts[1]
    check(
        "Slice",
        lambda t: t[:, :, starts[0] : ends[0] : steps[0], begin : ends[1] : steps[1]],
        [x],
        [np.array(starts), np.array(ends), np.array([2, 3]), np.array(steps)],
    )


def test_slice_of_channels_and_of_sequences() -> None:
    for shape, axes, steps in (((6, 4, 4), [1, 2], [2, 3]), ((7, 9), [1, 2], [3, 2])):
        x = normal(ROWS, *shape)
        check(
            "Slice",
            lambda t, s=steps: t[:, 1 :: s[0], :: s[1]],
            [x],
            [np.array([1, 0]), np.array([2**31 - 1] * 2), np.array(axes), np.array(steps)],
        )


def test_concat() -> None:
    check("Concat", lambda a, b: torch.cat([a, b], 1), [normal(ROWS, 2, 3, 3), normal(ROWS, 4, 3, 3)], [], axis=1)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed: int) -> None:
    weight = normal(5, 4) if transposed else normal(4, 5)
    matrix = torch.from_numpy(weight).double()
    check(
        "Gemm",
        lambda x: 0.5 * x @ (matrix.T if transposed else matrix),
        [normal(ROWS, 4)],
        [weight],
        transB=transposed,
        alpha=0.5,
    )


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
def test_gemm_of_three_activations(left: int, right: int) -> None:
    def expected(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return 0.5 * (a.T if left else a) @ (b.T if right else b) + 2.0 * c

    sides = normal(*((4, 3) if left else (3, 4))), normal(*((5, 4) if right else (4, 5)))
    for bias in (normal(3, 5), normal(1, 5)):
        check("Gemm", expected, [*sides, bias], [], transA=left, transB=right, alpha=0.5, beta=2.0, batched=False)


def test_matmul() -> None:
    weight = normal(4, 5)
    check("MatMul", lambda x: x @ torch.from_numpy(weight).double(), [normal(ROWS, 3, 4)], [weight])
