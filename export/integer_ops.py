"""How each operator is written into an integer graph. To add one: a function here, and a row in `EMIT`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from acclimate.export import integer_updates
from acclimate.export.activations import MOVERS
from acclimate.export.emission import Emission, Fused
from acclimate.export.graph import Graph, Node
from acclimate.export.onnx_format import CONTRIB
from acclimate.export.passes.affines import PARAMETER
from acclimate.export.passes.biases import BIAS_SITE
from acclimate.export.passes.low_rank import LOW_RANK
from acclimate.export.passes.sites import SITE
from acclimate.export.row_products import row_product
from acclimate.export.weights import QuantizedWeight, integer_constants


def _conv(fused: Fused, to: Emission) -> None:
    node = fused.node
    weight = to.weights.get(node.inputs[1])
    if weight is None:
        in_float(fused, to)
        return
    values, zeros = integer_constants(to.graph, node.inputs[1], weight)
    image = to.integer(node.inputs[0])
    if fused.site is not None:
        scale, bias = to.site_tensors(fused.site)
    else:
        scale, bias = _constant_scales(node, weight, to)
        if fused.bias is not None:
            unit = to.plan.scales[node.inputs[0]].scale * weight.scale.astype(np.float64)
            bias = integer_updates.bias_in_units(fused.bias, unit, to)
    attributes = {key: value for key, value in node.attributes.items() if key != "auto_pad"}
    inputs = (*image, values, scale, zeros, *to.scale(fused.output), bias)
    to.quantized[fused.output] = to.graph.add("QLinearConv", inputs, name=f"{fused.output}.q", **attributes)


def _constant_scales(node: Node, weight: QuantizedWeight, to: Emission) -> tuple[str, str]:
    """Scale and int32 bias of a convolution or Gemm without a norm."""
    unit = to.plan.scales[node.inputs[0]].scale * weight.scale.astype(np.float64)
    real = to.graph.constants[node.inputs[2]] if len(node.inputs) > 2 else np.zeros(len(unit))
    bias = np.clip(np.rint(real / unit), -(2**30), 2**30).astype(np.int32)
    return to.graph.constant(weight.scale, name=f"{node.inputs[1]}.scale"), to.graph.constant(bias)


def _add(fused: Fused, to: Emission) -> None:
    left, right = fused.node.inputs
    scaled = left in to.plan.scales and right in to.plan.scales and fused.output in to.plan.scales
    # What two float operators made is added in float: eight bits are too few for a transformer's residual stream.
    if not scaled or to.graph.shape(left) != to.graph.shape(right) or not {left, right} & set(to.quantized):
        in_float(fused, to)
        return
    inputs = (*to.integer(left), *to.integer(right), *to.scale(fused.output))
    name = f"{fused.output}.q"
    to.quantized[fused.output] = to.graph.add("QLinearAdd", inputs, name=name, domain=CONTRIB)


def _global_average_pool(fused: Fused, to: Emission) -> None:
    inputs = (*to.integer(fused.node.inputs[0]), *to.scale(fused.output))
    name = f"{fused.output}.q"
    to.quantized[fused.output] = to.graph.add(
        "QLinearGlobalAveragePool", inputs, name=name, domain=CONTRIB, channels_last=0
    )


def _gemm(fused: Fused, to: Emission) -> None:
    """Integer products with a float result: what follows a classifier's last layer wants its full range."""
    node = fused.node
    weight = to.weights.get(node.inputs[1])
    plain = all(float(node.attributes.get(key, 1.0)) == 1.0 for key in ("alpha", "beta"))
    if weight is None or weight.axis != 0 or not plain or node.attributes.get("transA", 0):
        in_float(fused, to)
        return
    if to.plan.rows:
        shift = node.inputs[2] if len(node.inputs) > 2 else ""
        product = f"{fused.output}.product" if shift else fused.output
        row_product(node.inputs[0], node.inputs[1], product, to)
        if shift:
            to.graph.add("Add", (product, to.real(shift)), name=fused.output)
        return
    values, zeros = integer_constants(to.graph, node.inputs[1], weight)
    scale, bias = _constant_scales(node, weight, to)
    inputs = (*to.integer(node.inputs[0]), values, scale, zeros, bias)
    to.graph.add("QGemm", inputs, name=fused.output, domain=CONTRIB, transB=1)


def _matmul(fused: Fused, to: Emission) -> None:
    """Integer products with a float result, by calibrated scales or by rows, as the plan says."""
    node = fused.node
    weight = to.weights.get(node.inputs[1])
    if to.plan.rows and weight is not None and weight.axis == 1:
        row_product(node.inputs[0], node.inputs[1], fused.output, to)
        return
    if weight is None or weight.axis != 1 or node.inputs[0] not in to.plan.scales:
        in_float(fused, to)
        return
    values, zeros = integer_constants(to.graph, node.inputs[1], weight)
    scale = to.graph.constant(weight.scale, name=f"{node.inputs[1]}.scale")
    image, image_scale, image_zero = to.integer(node.inputs[0])
    inputs = (image, values, image_scale, scale, image_zero, zeros)
    to.graph.add("MatMulIntegerToFloat", inputs, name=fused.output, domain=CONTRIB)


def _site(fused: Fused, to: Emission) -> None:
    """A batch norm that no convolution carries, in float at the session's own statistics."""
    node = fused.node
    site = to.model.sites[node.attributes["site"]]
    inputs = (to.real(node.inputs[0]), site.scale, site.shift, site.mean, site.var)
    to.graph.nodes.append(Node("BatchNormalization", inputs, node.outputs, {"epsilon": site.epsilon}))


def _parameter(fused: Fused, to: Emission) -> None:
    """A slice of theta against one row."""
    view = to.graph.constant(np.array([1, *fused.node.attributes["view"]], np.int64))
    to.graph.add("Reshape", (fused.node.attributes["slice"], view), name=fused.output)


def _move(fused: Fused, to: Emission) -> None:
    node = fused.node
    if node.inputs[0] not in to.quantized or (node.op == "Pad" and not _pads_zeros(node, to.graph)):
        in_float(fused, to)
        return
    rest = list(node.inputs[1:])
    if node.op == "Pad":
        rest[1:2] = [to.scale(node.inputs[0])[1]]
    inputs = (to.quantized[node.inputs[0]], *rest)
    to.quantized[fused.output] = to.graph.add(node.op, inputs, name=f"{fused.output}.q", **node.attributes)


def _pads_zeros(node: Node, graph: Graph) -> bool:
    value = node.inputs[2] if len(node.inputs) > 2 else ""
    return node.attributes.get("mode", "constant") == "constant" and not (value and np.any(graph.constants[value]))


def in_float(fused: Fused, to: Emission) -> None:
    """The operator as it is, over dequantized weights and activations."""
    node = fused.node
    for name in node.inputs:
        if name in to.weights:
            weight = to.weights[name]
            values = to.graph.constant(weight.values, name=f"{name}.int8")
            scale = to.graph.constant(weight.scale, name=f"{name}.scale")
            if to.graph.constants.pop(name, None) is not None:
                to.graph.add("DequantizeLinear", (values, scale), name=name, axis=weight.axis)
    inputs = [to.real(name) if name else "" for name in node.inputs]
    to.graph.nodes.append(Node(node.op, tuple(inputs), node.outputs, node.attributes, node.domain))
    if fused.output != node.output:
        to.graph.add("Relu", (node.output,), name=fused.output)


EMIT: dict[str, Callable[[Fused, Emission], None]] = {
    "Conv": _conv,
    "Add": _add,
    "GlobalAveragePool": _global_average_pool,
    "Gemm": _gemm,
    "MatMul": _matmul,
    BIAS_SITE: integer_updates.bias,
    LOW_RANK: integer_updates.low_rank,
    PARAMETER: _parameter,
    SITE: _site,
    **dict.fromkeys(MOVERS, _move),
}
