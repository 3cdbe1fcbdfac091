"""Models that exist only as ONNX: read, brought into the compiler's form, compiled as torch models are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper, version_converter

from acclimate.export.adaptation import Norms
from acclimate.export.backward.vjp import ALPHA, BATCH_STATS, COTANGENT, GRAD_THETA, MIX, STATS, THETA
from acclimate.export.calibration import CalibrationData, checked
from acclimate.export.compile import Notify, Origin, compile_origin
from acclimate.export.errors import CalibrationError, ExportError, UnsupportedModel
from acclimate.export.graph import BATCH, Graph, Node, Value
from acclimate.export.integer import BIAS, SCALE
from acclimate.export.onnx_check import OnnxOriginal, parity
from acclimate.export.onnx_format import OPSET, evaluate, from_onnx, to_onnx
from acclimate.export.passes.simplify import simplified
from acclimate.export.passes.sites import Adaptable, with_sites
from acclimate.export.report import Report
from acclimate.export.spec import BundleSpec
from acclimate.export.torch_import import is_pickle
from acclimate.export.trace import INPUT, OUTPUT, Preprocessing
from acclimate.export.write import refuse_other_content

# Names that the bundle's graphs give a meaning.
_TAKEN = (INPUT, OUTPUT, THETA, STATS, MIX, ALPHA, COTANGENT, GRAD_THETA, BATCH_STATS, SCALE, BIAS)


@dataclass(frozen=True)
class OnnxModel:
    """A model in the compiler's form, and the original to compare with.

    Attributes:
        graph: takes uint8 `image [B, C, H, W]`, returns float32 `logits [B, classes]`.
        original: the file's own computation, up to the logits.
        classes: width of the logits.
        parameters: elements of all float constants of the file.
    """

    graph: Graph
    original: OnnxOriginal
    classes: int
    parameters: int


def read_onnx(path: Path, sample_shape: tuple[int, ...], preprocessing: Preprocessing) -> OnnxModel:
    """Read a classifier with one image input and one output.

    Opsets are converted, a fixed batch becomes free, and a Softmax at the end is dropped, for algorithms want logits.

    Args:
        path: the file; weights beside it (external data) are read too.
        sample_shape: `(C, H, W)` of the calibration samples.
        preprocessing: from uint8 pixels to a float model's input; a uint8 model takes the pixels themselves.

    Raises:
        ExportError: the file cannot be read. UnsupportedModel: it holds something that cannot be translated.
        CalibrationError: samples of this shape do not fit its input.
    """
    proto = _loaded(path)
    _refuse_non_finite(proto)
    _drop_softmax(proto.graph)
    feed = _only_input(proto.graph)
    _fit(feed, sample_shape)
    # Shapes are inferred a second time, because ONNX knows the sizes of a Slice or Pad only by constants.
    graph = from_onnx(to_onnx(_constants_folded(from_onnx(_with_free_batch(_converted(proto), sample_shape)))))
    if len(graph.outputs) != 1:
        raise UnsupportedModel(f"onnx: outputs are {list(graph.outputs)}; a classifier with one is expected")
    graph = simplified(_with_pixels(_renamed(graph), sample_shape, preprocessing))
    shape = graph.outputs[OUTPUT].shape
    if len(shape) != 2 or shape[0] != BATCH or shape[1] < 2:
        raise UnsupportedModel(f"onnx: the output has shape {list(shape)}; logits [batch, classes] are expected")
    floats = [array.size for array in graph.constants.values() if array.dtype == np.float32]
    return OnnxModel(graph, _original(proto, feed.name, preprocessing), shape[1], sum(floats))


def compile_onnx(
    model: OnnxModel, data: CalibrationData, spec: BundleSpec, out: Path, notify: Notify | None = None
) -> Report:
    """Compile what `read_onnx` returned and write the bundle at `out`, or write nothing.

    Raises:
        ExportError: as `compile_model`.
    """
    refuse_other_content(out)
    data = checked(data, len(spec.classes))

    def adaptable() -> Adaptable:
        if len(spec.classes) != model.classes:
            raise CalibrationError(
                f"classes: {len(spec.classes)} names were given, but the model returns {model.classes} logits"
            )
        if Norms() in spec.adapt:
            _refuse_folded(model.graph)
        return with_sites(model.graph, spec.sites, spec.adapt)

    origin = Origin(
        kind="onnx",
        parameters=model.parameters,
        adaptable=adaptable,
        parity=lambda quantized, graphs: parity(model.original, quantized, graphs, data),
    )
    return compile_origin(origin, data, spec, out, notify)


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        if is_pickle(path):
            raise ExportError(
                f"onnx: {str(path)!r} is a pickle checkpoint, which may run code when it is opened; where you trust "
                "it, write the model with torch.onnx.export, or convert its weights for `acclimate export torch`"
            )
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except ExportError:
        raise
    except OSError as error:
        raise ExportError(f"onnx: {str(path)!r} cannot be read ({error.strerror or error})") from error
    except Exception as error:
        # Protobuf's decoder and ONNX's checker share no other base; either way it is the file.
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"onnx: {str(path)!r} is not a valid ONNX model ({reason[0] if reason else error})"
        ) from error
    return inliner.inline_local_functions(proto) if proto.functions else proto


def _original(proto: onnx.ModelProto, feed: str, preprocessing: Preprocessing) -> OnnxOriginal:
    try:
        return OnnxOriginal.of(proto, feed, preprocessing)
    except Exception as error:
        # ONNX Runtime's own exceptions share no base class but this one.
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedModel(f"onnx: ONNX Runtime cannot load the model ({reason})") from error


def _refuse_non_finite(proto: onnx.ModelProto) -> None:
    for entry in proto.graph.initializer:
        array = numpy_helper.to_array(entry)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UnsupportedModel(f"weight {entry.name!r} is not finite; the file is damaged")


def _drop_softmax(graph: onnx.GraphProto) -> None:
    """Return the logits instead of what a final Softmax makes of them."""
    last = next((n for n in graph.node if len(graph.output) == 1 and graph.output[0].name in n.output), None)
    if last is None or last.op_type not in ("Softmax", "LogSoftmax"):
        return
    shape = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    graph.output[0].CopyFrom(helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, shape))
    for dim, size in zip(graph.output[0].type.tensor_type.shape.dim, shape, strict=True):
        if size == 0:
            dim.ClearField("dim_value")
    graph.node.remove(last)


def _only_input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    constants = {entry.name for entry in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in constants]
    if len(inputs) != 1:
        raise UnsupportedModel(f"onnx: inputs are {[entry.name for entry in inputs]}; exactly one image is expected")
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8):
        name = onnx.TensorProto.DataType.Name(kind)
        raise UnsupportedModel(f"onnx: input {inputs[0].name!r} is {name}; FLOAT or UINT8 is expected")
    return inputs[0]


def _fit(feed: onnx.ValueInfoProto, sample_shape: tuple[int, ...]) -> None:
    """Refuse samples that the declared input cannot take."""
    declared = [dim.dim_value for dim in feed.type.tensor_type.shape.dim]
    fits = len(declared) == 1 + len(sample_shape) and all(
        size in (0, given) for size, given in zip(declared[1:], sample_shape, strict=True)
    )
    if not fits:
        raise CalibrationError(
            f"calibration: samples have shape {list(sample_shape)}; input {feed.name!r} takes {declared[1:]} "
            "(0 is any size)"
        )


def _converted(proto: onnx.ModelProto) -> onnx.ModelProto:
    version = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if version == OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except (RuntimeError, onnx.shape_inference.InferenceError) as error:
        raise UnsupportedModel(f"onnx: opset {version} cannot be converted to {OPSET} ({error})") from error


def _with_free_batch(proto: onnx.ModelProto, sample_shape: tuple[int, ...]) -> onnx.ModelProto:
    """The first axis of input and output symbolic, the input's others known, everything between inferred anew."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.value_info[:]
    (feed,) = (entry for entry in result.graph.input if entry.name == _only_input(proto.graph).name)
    for dim, size in zip(feed.type.tensor_type.shape.dim[1:], sample_shape, strict=True):
        dim.dim_value = size
    for info in (feed, *result.graph.output):
        if info.type.tensor_type.shape.dim:
            info.type.tensor_type.shape.dim[0].dim_param = "batch"
    return result


def _constants_folded(graph: Graph) -> Graph:
    """Every node that depends on constants alone becomes a constant."""
    result = graph.copy(())
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedModel(f"onnx: node {node.output!r} is {node.op} of domain {node.domain!r}; not supported")
        if node.op == "Constant":
            ((key, value),) = node.attributes.items()
            result.constants[node.output] = np.asarray(value, np.float32 if key.startswith("value_float") else None)
        elif node.inputs and all(name in result.constants for name in node.inputs if name):
            known = [result.constants[name] if name else None for name in node.inputs]
            result.constants.update(zip(node.outputs, evaluate(node, known), strict=False))
        else:
            result.nodes.append(node)
    return result


def _renamed(graph: Graph) -> Graph:
    """`image` and `logits` at the ends, and no other tensor with a name that the bundle's graphs use."""
    (feed,), (logits,) = graph.inputs, graph.outputs
    known = {*graph.values, *graph.constants, *(name for node in graph.nodes for name in node.outputs)}
    names = {name: _free(name, known) for name in _TAKEN if name in known}
    names |= {feed: f"{INPUT}.model" if feed == INPUT else feed, logits: OUTPUT}
    renamed = Graph(
        inputs=_keys(graph.inputs, names),
        outputs=_keys(graph.outputs, names),
        constants={names.get(name, name): array for name, array in graph.constants.items()},
        values=_keys(graph.values, names),
    )
    renamed.nodes = [
        Node(node.op, _each(node.inputs, names), _each(node.outputs, names), node.attributes, node.domain)
        for node in graph.nodes
    ]
    return renamed


def _keys(values: dict[str, Value], names: dict[str, str]) -> dict[str, Value]:
    return {names.get(name, name): value for name, value in values.items()}


def _each(tensors: Iterable[str], names: dict[str, str]) -> tuple[str, ...]:
    return tuple(names.get(name, name) for name in tensors)


def _free(name: str, known: set[str]) -> str:
    candidate = f"{name}.model"
    while candidate in known:
        candidate += "_"
    return candidate


def _with_pixels(graph: Graph, sample_shape: tuple[int, ...], preprocessing: Preprocessing) -> Graph:
    """The same graph behind `(image * scale - mean) / std`, or fed by the image itself where it takes uint8."""
    ((feed, value),) = graph.inputs.items()
    result = graph.copy(())
    shape = (BATCH, *sample_shape)
    result.inputs = {INPUT: Value(np.dtype(np.uint8), shape)}
    result.values[INPUT] = result.inputs[INPUT]
    if value.dtype == np.uint8:
        result.nodes = [node.renamed({feed: INPUT}) for node in graph.nodes]
        return result
    single = Value(np.dtype(np.float32), shape)
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (preprocessing.mean, preprocessing.std))
    gain, offset = np.asarray(preprocessing.scale / std, np.float32), np.asarray(-mean / std, np.float32)
    real = result.add("Cast", (INPUT,), name="pixels.float", to=int(onnx.TensorProto.FLOAT))
    scaled = result.add("Mul", (real, result.constant(gain)), name="pixels.scaled")
    result.add("Add", (scaled, result.constant(offset)), name=feed)
    result.values |= {real: single, scaled: single, feed: single}
    result.nodes += graph.nodes
    return result


def _refuse_folded(graph: Graph) -> None:
    if not any(node.op == "BatchNormalization" for node in graph.nodes):
        raise UnsupportedModel(
            "onnx: the model has no BatchNormalization; exporters fold it into convolutions by default: "
            "export again with it kept (torch.onnx.export: training=TrainingMode.PRESERVE or optimize=False)"
        )
