"""Between `Graph` and ONNX protobufs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from acclimate.adapters.manifest import WEIGHTS_FILE
from acclimate.export.errors import UnsupportedModel
from acclimate.export.graph import BATCH, Array, Graph, Node, Value

OPSET = 20
IR_VERSION = 10
CONTRIB = "com.microsoft"
_ROWS = "batch"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a constant lies in the file of shared weights, bytes."""

    offset: int
    length: int


_NOWHERE: Mapping[str, Place] = MappingProxyType({})


def from_onnx(model: onnx.ModelProto) -> Graph:
    """Read a model whose only symbolic dimension is the first one of its activations.

    Raises:
        UnsupportedModel: control flow, functions, another symbolic dimension.
    """
    if model.functions:
        raise UnsupportedModel(f"onnx: local functions {[f.name for f in model.functions]} are not supported")
    proto = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    graph = Graph(constants={entry.name: numpy_helper.to_array(entry) for entry in proto.initializer})
    for info in (*proto.input, *proto.value_info, *proto.output):
        value = _value(info)
        if value is not None and info.name not in graph.constants:
            graph.values[info.name] = value
    graph.inputs = {i.name: graph.values[i.name] for i in proto.input if i.name not in graph.constants}
    graph.outputs = {o.name: graph.values[o.name] for o in proto.output}
    for proto_node in proto.node:
        if proto_node.op_type == "Constant":
            graph.constants[proto_node.output[0]] = _constant(proto_node)
            continue
        attributes = {a.name: _attribute(proto_node, a) for a in proto_node.attribute}
        graph.nodes.append(
            Node(proto_node.op_type, tuple(proto_node.input), tuple(proto_node.output), attributes, proto_node.domain)
        )
    return graph


def to_onnx(
    graph: Graph, name: str = "graph", extra_outputs: Iterable[str] = (), places: Mapping[str, Place] = _NOWHERE
) -> onnx.ModelProto:
    """Write a graph as a model.

    `extra_outputs` are intermediate tensors to return as well; the constants in `places` are written as external data
    of the shared file, the others into the model.
    """
    outputs = dict(graph.outputs) | {extra: graph.values[extra] for extra in extra_outputs}
    nodes = [
        helper.make_node(
            node.op,
            list(node.inputs),
            list(node.outputs),
            name=f"{node.op}:{node.output}",
            domain=node.domain,
            **_proto_attributes(node),
        )
        for node in graph.nodes
    ]
    proto = helper.make_graph(
        nodes,
        name,
        [_info(key, value, f"{key}.rows" if key in graph.constants else _ROWS) for key, value in graph.inputs.items()],
        [_info(key, value) for key, value in outputs.items()],
        [_initializer(key, array, places.get(key)) for key, array in graph.constants.items()],
    )
    domains = [helper.make_opsetid("", OPSET)]
    if any(node.domain == CONTRIB for node in graph.nodes):
        domains.append(helper.make_opsetid(CONTRIB, 1))
    return helper.make_model(proto, opset_imports=domains, ir_version=IR_VERSION, producer_name="acclimate")


def _initializer(name: str, array: Array, place: Place | None) -> onnx.TensorProto:
    if place is None:
        return numpy_helper.from_array(np.asarray(array, order="C"), name)
    tensor = onnx.TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", WEIGHTS_FILE), ("offset", place.offset), ("length", place.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _value(info: onnx.ValueInfoProto) -> Value | None:
    tensor = info.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    shape = [d.dim_value if d.HasField("dim_value") else BATCH for d in tensor.shape.dim]
    return Value(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(shape))


def _info(name: str, value: Value, rows: str = _ROWS) -> onnx.ValueInfoProto:
    """`rows` names the batch; an input with a default may have other rows than the rest, and has a name of its own."""
    shape = [rows if size == BATCH else size for size in value.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)


def _attribute(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> Any:
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        raise UnsupportedModel(f"onnx: node {node.name or node.output[0]!r} ({node.op_type}) holds a subgraph")
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if not isinstance(value, (int, float, str)) else value


def _constant(node: onnx.NodeProto) -> Array:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value, np.float32 if attribute.name.startswith("value_float") else np.int64)


def _proto_attributes(node: Node) -> dict[str, Any]:
    return {
        key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for key, value in node.attributes.items()
    }


def evaluate(node: Node, inputs: list[Array | None]) -> list[Array]:
    """What a node returns for constant inputs, by ONNX Runtime."""
    from acclimate.export.session import session

    feeds = {name: array for name, array in zip(node.inputs, inputs, strict=True) if array is not None}
    attributes = _proto_attributes(node)
    proto = helper.make_graph(
        [helper.make_node(node.op, list(node.inputs), list(node.outputs), domain=node.domain, **attributes)],
        "constant",
        [_info(name, Value(array.dtype, array.shape)) for name, array in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.outputs if name],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return [np.asarray(array) for array in session(model.SerializeToString(), threads=1).run(None, feeds)]
