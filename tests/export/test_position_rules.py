"""Backward rules of operators that move, repeat, resample or contract, against torch autograd in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from acclimate.export.errors import UnsupportedModel
from tests.export.test_backward_rules import FEW, ROWS, check, normal

SHAPE = (ROWS, 3, 4, 6)
OWN_TESTS = {
    *("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"),
    *("Tile", "Trilu", "DepthToSpace", "SpaceToDepth", "Squeeze", "Unsqueeze", "Flatten"),
    *("Resize", "Einsum", "ConvTranspose"),
}


@FEW
@given(axis=st.integers(1, 3), places=st.lists(st.integers(-3, 2), min_size=1, max_size=5), square=st.booleans())
def test_gather(axis: int, places: list[int], square: bool) -> None:
    """Some positions several times, some from the end."""
    index = np.array([places, places[::-1]] if square else places)

    def expected(x: Tensor) -> Tensor:
        return x[(slice(None),) * axis + (torch.from_numpy(index),)]

    check("Gather", expected, [normal(*SHAPE)], [index], axis=axis)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_gather_elements(axis: int) -> None:
    index = np.random.default_rng(0).integers(0, 3, SHAPE)
    check("GatherElements", lambda x: x.gather(axis, torch.from_numpy(index)), [normal(*SHAPE)], [index], axis=axis)


def test_gather_nd() -> None:
    rows, at = torch.tensor([0, 1]), torch.tensor([2, 0])
    index = torch.stack([rows, at], 1).numpy()
    check("GatherND", lambda x: x[rows, at], [normal(*SHAPE)], [index])


def test_gather_nd_by_batch_dimensions_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="batch_dims"):
        check("GatherND", lambda x: x[:, 0], [normal(*SHAPE)], [np.zeros((ROWS, 1), np.int64)], batch_dims=1)


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_nd(reduction: str) -> None:
    rows, at = torch.tensor([0, 1]), torch.tensor([2, 0])
    index = torch.stack([rows, at], 1).numpy()

    def expected(x: Tensor) -> Tensor:
        return x.index_put((rows, at), torch.from_numpy(updates).double(), accumulate=reduction == "add")

    updates = normal(ROWS, 4, 6)
    check("ScatterND", expected, [normal(*SHAPE)], [index, updates], reduction=reduction)


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_elements(reduction: str) -> None:
    index = np.tile(np.array([2, 0])[None, :, None, None], (ROWS, 1, 4, 6))
    updates = normal(*index.shape)

    def expected(x: Tensor) -> Tensor:
        places, values = torch.from_numpy(index), torch.from_numpy(updates).double()
        return x.scatter_add(1, places, values) if reduction == "add" else x.scatter(1, places, values)

    check("ScatterElements", expected, [normal(*SHAPE)], [index, updates], axis=1, reduction=reduction)


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_what_is_scattered_gets_its_gradient(op: str) -> None:
    """Data, positions, updates: the positions stand between two activations, so the node is made by hand."""
    _check_updates(op)


def _check_updates(op: str) -> None:
    from acclimate.export.backward.rules import RULES
    from acclimate.export.backward.tape import Tape
    from acclimate.export.graph import BATCH, Graph, Node, Value
    from acclimate.export.session import run, session

    index = np.array([[[1], [1]], [[1], [1]]]) if op == "ScatterElements" else np.array([[0, 1], [1, 2]])
    shapes = {"x": (ROWS, 3, 2), "g": (ROWS, 3, 2), "u": (ROWS, 2, 1) if op == "ScatterElements" else (ROWS, 2)}
    feeds = {name: normal(*shape, 1)[..., 0] for name, shape in shapes.items()}
    graph = Graph()
    for name, shape in shapes.items():
        graph.inputs[name] = graph.values[name] = Value(np.dtype(np.float32), (BATCH, *shape[1:]))
    graph.values["y"] = graph.values["x"]
    node = Node(op, ("x", graph.constant(index), "u"), ("y",), {"axis": 2} if op == "ScatterElements" else {})
    graph.nodes.append(node)
    found = RULES[op](node, "g", Tape(graph, frozenset({"x", "u", "y"})))
    graph.outputs = {found[0]: graph.values["x"], found[2]: graph.values["u"]}
    graph.nodes.remove(node)
    got = run(session(graph), {name: feeds[name] for name in ("g", "u")} | {"x": feeds["x"]})
    grad = torch.from_numpy(feeds["g"])
    if op == "ScatterElements":
        places = torch.from_numpy(index)
        kept, put = grad.scatter(2, places, 0.0), grad.gather(2, places)
    else:
        rows, at = torch.from_numpy(index).T
        kept, put = grad.index_put((rows, at), torch.zeros(())), grad[rows, at]
    np.testing.assert_array_equal(got[found[0]], kept.numpy())
    np.testing.assert_array_equal(got[found[2]], put.numpy())


@FEW
@given(counts=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)))
def test_tile(counts: tuple[int, int, int]) -> None:
    check("Tile", lambda x: x.repeat(1, *counts), [normal(*SHAPE)], [np.array([1, *counts])])


def test_tiling_the_batch_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="1 for the batch"):
        check("Tile", lambda x: x, [normal(*SHAPE)], [np.array([2, 1, 1, 1])])


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("diagonal", [-1, 0, 2])
def test_trilu(upper: int, diagonal: int) -> None:
    function = torch.triu if upper else torch.tril
    check("Trilu", lambda x: function(x, diagonal), [normal(*SHAPE)], [np.array(diagonal)], upper=upper)


def test_depth_to_space_and_back() -> None:
    blocks = (ROWS, 2, 2, 3, 4, 5)

    def column_row_depth(x: Tensor) -> Tensor:
        return functional.pixel_shuffle(x, 2)

    def depth_column_row(x: Tensor) -> Tensor:
        return x.reshape(*blocks).permute(0, 3, 4, 1, 5, 2).reshape(ROWS, 3, 8, 10)

    def space_to_depth(x: Tensor) -> Tensor:
        return x.reshape(ROWS, 3, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(ROWS, 12, 2, 3)

    deep = normal(ROWS, 12, 4, 5)
    check("DepthToSpace", column_row_depth, [deep], [], blocksize=2, mode="CRD")
    check("DepthToSpace", depth_column_row, [deep], [], blocksize=2, mode="DCR")
    check("SpaceToDepth", space_to_depth, [normal(*SHAPE)], [], blocksize=2)


def test_views() -> None:
    check("Squeeze", lambda x: x.squeeze(2), [normal(ROWS, 3, 1, 5)], [np.array([2])])
    check("Unsqueeze", lambda x: x.unsqueeze(2), [normal(*SHAPE)], [np.array([2])])
    check("Flatten", lambda x: x.flatten(1), [normal(*SHAPE)], [], axis=1)


RESIZED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nearest": (
        {"mode": "nearest"},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "bilinear": ({"mode": "bilinear", "align_corners": False}, {"mode": "linear"}),
    "aligned": (
        {"mode": "bilinear", "align_corners": True},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "bicubic": (
        {"mode": "bicubic", "align_corners": False},
        {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel", "cubic_coeff_a": -0.75},
    ),
}


@FEW
@given(mode=st.sampled_from(sorted(RESIZED)), size=st.tuples(st.integers(2, 12), st.integers(2, 12)))
def test_resize_to_a_size(mode: str, size: tuple[int, int]) -> None:
    ours, theirs = RESIZED[mode]
    # Downscaling by nearest rounds positions in float32 in one and in float64 in the other.
    assume(mode != "nearest" or (size[0] % 4 == 0 and size[1] % 6 == 0))

    def expected(x: Tensor) -> Tensor:
        return functional.interpolate(x, size, **ours)

    empty = np.empty(0, np.float32)
    check("Resize", expected, [normal(*SHAPE)], [empty, empty, np.array([ROWS, 3, *size])], **theirs)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resize_by_a_factor(mode: str) -> None:
    ours, theirs = RESIZED[mode]
    factors = [np.empty(0, np.float32), np.array([1, 1, 2, 3], np.float32)]
    check(
        "Resize", lambda x: functional.interpolate(x, scale_factor=(2, 3), **ours), [normal(*SHAPE)], factors, **theirs
    )


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_pad_by_copies(mode: str) -> None:
    torch_mode = {"reflect": "reflect", "edge": "replicate"}[mode]
    pads = np.array([0, 0, 1, 2, 0, 0, 3, 4])
    check("Pad", lambda x: functional.pad(x, (2, 4, 1, 3), torch_mode), [normal(*SHAPE)], [pads], mode=mode)


def test_pad_that_crops() -> None:
    pads = np.array([0, 0, -1, 2, 0, 1, 1, -3])
    check("Pad", lambda x: functional.pad(x, (2, -3, -1, 1, 0, 1)), [normal(*SHAPE)], [pads])


@FEW
@given(start=st.integers(-7, 7), step=st.integers(1, 3), both=st.booleans())
def test_slice_backwards(start: int, step: int, both: bool) -> None:
    x = normal(*SHAPE)
    taken = np.arange(6)[start::-step]
    assume(taken.size)
    index = torch.from_numpy(taken.copy())
    steps = [-step, 2] if both else [-step]
    places = [np.array(part[: len(steps)]) for part in ([start, 1], [-(2**31), 4], [3, 2])]

    def expected(t: Tensor) -> Tensor:
        return (t[:, :, 1:4:2] if both else t)[:, :, :, index]

    check("Slice", expected, [x], [*places, np.array(steps)])


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("bhid,bhjd->bhij", (2, 3, 4), (2, 5, 4)),
        ("bij, bjk -> bik", (3, 4), (4, 5)),
        ("bchw,bc->bhw", (3, 4, 5), (3,)),
        ("bi,bj->bij", (3,), (4,)),
    ],
)
def test_einsum(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    def expected(*tensors: Tensor) -> Tensor:
        return torch.einsum(equation, *tensors)

    check("Einsum", expected, [normal(ROWS, *left), normal(ROWS, *right)], [], equation=equation)


@pytest.mark.parametrize("equation", ["bii,bi->bi", "b...,b...->b...", "bij,bj->bj", "bi,bi"])
def test_other_einsums_are_refused(equation: str) -> None:
    with pytest.raises(UnsupportedModel, match="Einsum 'y'"):
        check("Einsum", lambda a, b: a + b, [normal(ROWS, 3), normal(ROWS, 3)], [], equation=equation)


@FEW
@given(
    group=st.sampled_from([1, 2]),
    outputs=st.integers(1, 3),
    inputs=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    dilation=st.integers(1, 2),
    beyond=st.integers(0, 1),
)
def test_conv_transpose(
    group: int, outputs: int, inputs: int, kernel: tuple[int, int], stride: int, pad: int, dilation: int, beyond: int
) -> None:
    assume(beyond < stride and min(dilation * (k - 1) - 2 * pad + (4 - 1) * stride for k in kernel) >= 0)
    weight = normal(group * inputs, outputs, *kernel)

    def expected(x: Tensor) -> Tensor:
        kernels = torch.from_numpy(weight).double()
        return functional.conv_transpose2d(x, kernels, None, stride, pad, beyond, group, dilation)

    check(
        "ConvTranspose",
        expected,
        [normal(ROWS, group * inputs, 4, 5)],
        [weight],
        strides=[stride] * 2,
        pads=[pad] * 4,
        dilations=[dilation] * 2,
        group=group,
        output_padding=[beyond] * 2,
    )
