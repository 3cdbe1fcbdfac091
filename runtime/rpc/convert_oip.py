"""Open Inference messages <-> the service's own types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from acclimate.adapters.manifest import FORMAT_VERSION, LANGUAGE_TASK, Manifest, TensorSpec
from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.datatypes import accepted
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.rpc import tensors
from acclimate.runtime.types import InferReply, InferRequest, Scalar

PLATFORM = "acclimate_onnx"
MAX_ID = 128
SHARED_MEMORY = "shared_memory_region"
CLASSIFICATION = "classification"
FINAL = "triton_final_response"
# As clients of Triton's LLM backends name them; all but the first may be left out, or said by request parameters.
TEXT_INPUT, TEXT_OUTPUT = "text_input", "text_output"
TEXT_INPUTS = (
    TensorSpec(TEXT_INPUT, "BYTES", (1,)),
    TensorSpec("stream", "BOOL", (1,)),
    TensorSpec("max_tokens", "INT32", (1,)),
    TensorSpec("temperature", "FP32", (1,)),
    TensorSpec("top_p", "FP32", (1,)),
    TensorSpec("stop", "BYTES", (-1,)),
    TensorSpec("seed", "UINT64", (1,)),
    TensorSpec("sampling_parameters", "BYTES", (1,)),
    TensorSpec("exclude_input_in_output", "BOOL", (1,)),
)
TEXT_OUTPUTS = (TensorSpec(TEXT_OUTPUT, "BYTES", (1,)),)

Tensor = oip.ModelInferRequest.InferInputTensor | oip.ModelInferRequest.InferRequestedOutputTensor


def infer_request(message: oip.ModelInferRequest, now: float, remaining: float | None) -> InferRequest:
    """The request behind a ModelInfer message.

    Args:
        message: what the client sent.
        now: the service clock, seconds.
        remaining: seconds until the deadline, or None; a `timeout` parameter (microseconds) can shorten it.

    Raises:
        InvalidArgument: a tensor, parameter or id is malformed; the message names field, value and fix.
    """
    # Every field of a message that is read is an object that is made: the hot path reads each once.
    name, inputs, outputs = message.id, tuple(message.inputs), tuple(message.outputs)
    if len(name) > MAX_ID:
        raise InvalidArgument(
            "REQUEST_ID_INVALID", f"id has {len(name)} characters; at most {MAX_ID} are accepted", field="id"
        )
    _refuse_duplicates("inputs", inputs)
    _refuse_duplicates("outputs", outputs)
    for tensor in inputs:
        _refuse_parameters(tensor)
    for output in outputs:
        _refuse_parameters(output)
    parameters = {key: scalar(key, value) for key, value in message.parameters.items()}
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        id=name,
        inputs=_arrays(inputs, message.raw_input_contents),
        outputs=tuple(output.name for output in outputs) if outputs else (),
        parameters=parameters,
        deadline=_deadline(parameters, now, remaining),
    )


def infer_response(reply: InferReply, raw: bool) -> oip.ModelInferResponse:
    """The message for a reply: raw contents if `raw` or if an output has no typed ones, typed ones otherwise."""
    raw = raw or any(not tensors.has_typed_field(array) for array in reply.outputs.values())
    message = oip.ModelInferResponse(model_name=reply.model, model_version=reply.version, id=reply.id)
    parameters = message.parameters
    for key, value in reply.parameters.items():
        _set(parameters[key], value)
    for name, array in reply.outputs.items():
        output = message.outputs.add(name=name, datatype=tensors.datatype_of(array), shape=array.shape)
        if raw:
            message.raw_output_contents.append(tensors.to_raw(array))
        else:
            output.contents.CopyFrom(tensors.to_typed(array))
    return message


def model_metadata(manifest: Manifest) -> oip.ModelMetadataResponse:
    """A model's description, its adaptation facts as properties."""
    return oip.ModelMetadataResponse(
        name=manifest.name,
        versions=[manifest.version],
        platform=PLATFORM,
        inputs=[_tensor_metadata(spec) for spec in inputs_of(manifest)],
        outputs=[_tensor_metadata(spec) for spec in outputs_of(manifest)],
        properties=properties(manifest),
    )


def inputs_of(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """The tensors that a model takes; those of language models are all alike."""
    return TEXT_INPUTS if manifest.task == LANGUAGE_TASK else manifest.inputs


def outputs_of(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """The tensors that a model answers."""
    return TEXT_OUTPUTS if manifest.task == LANGUAGE_TASK else manifest.outputs


def properties(manifest: Manifest) -> dict[str, str]:
    """What a client may want to know before it opens a session; `docs/api.md` lists the keys."""
    calibration, cost = manifest.calibration, manifest.cost
    document = json.dumps(manifest.to_json(), sort_keys=True, default=str)
    return {
        "task": manifest.task,
        "classes": json.dumps(list(manifest.classes)),
        "parameters": str(manifest.parameters.size),
        "parameters_digest": manifest.parameters.digest,
        "statistics": str(manifest.statistics.size),
        "sites": str(len(manifest.sites)),
        "calibration_accuracy": repr(calibration.accuracy),
        "calibration_labelled": str(calibration.labelled).lower(),
        "calibration_mean_entropy_nats": repr(calibration.mean_entropy),
        "calibration_mean_confidence": repr(calibration.mean_confidence),
        "confidence_threshold": repr(calibration.confidence_threshold),
        "input_datatypes": json.dumps(list(accepted(inputs_of(manifest)[0].datatype))),
        "forward_flops": repr(cost.forward_flops),
        "vjp_flops": repr(cost.vjp_flops),
        "bundle_format_version": str(FORMAT_VERSION),
        "bundle_digest": hashlib.sha256(document.encode()).hexdigest(),
    }


def scalar(key: str, value: oip.InferParameter) -> Scalar:
    """The value of a parameter.

    Raises:
        InvalidArgument: no value is set.
    """
    choice = value.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidArgument(
            "PARAMETER_INVALID",
            f"parameter {key[:64]!r} has no value; set one of bool_param, int64_param, uint64_param, "
            "double_param and string_param",
            field=f"parameters.{key[:64]}",
        )
    result: Scalar = getattr(value, choice)
    return result


def parameter(value: Scalar) -> oip.InferParameter:
    """The message for a value; integers above 2^63 - 1 travel unsigned."""
    message = oip.InferParameter()
    _set(message, value)
    return message


def _set(message: oip.InferParameter, value: Scalar) -> None:
    if isinstance(value, bool):
        message.bool_param = value
    elif isinstance(value, float):
        message.double_param = value
    elif isinstance(value, str):
        message.string_param = value
    elif value >= 2**63:
        message.uint64_param = value
    else:
        message.int64_param = value


def _arrays(inputs: Sequence[oip.ModelInferRequest.InferInputTensor], raw: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    if not raw:
        return {t.name: tensors.from_typed(t.name, t.datatype, t.shape, t.contents) for t in inputs}
    mixed = [tensor.name for tensor in inputs if tensor.HasField("contents")]
    if mixed:
        raise InvalidArgument(
            "CONTENTS_MIXED",
            f"tensor {mixed[0][:64]!r} has typed contents beside raw_input_contents; use one form for all",
            field="raw_input_contents",
            tensor=mixed[0],
        )
    if len(raw) != len(inputs):
        raise InvalidArgument(
            "RAW_COUNT_MISMATCH",
            f"raw_input_contents has {len(raw)} blobs for {len(inputs)} inputs; send one for each, in order",
            field="raw_input_contents",
            expected=len(inputs),
            given=len(raw),
        )
    named = ((tensor.name, tensor, blob) for tensor, blob in zip(inputs, raw, strict=True))
    return {name: tensors.from_raw(name, tensor.datatype, tensor.shape, blob) for name, tensor, blob in named}


def _deadline(parameters: Mapping[str, Scalar], now: float, remaining: float | None) -> float | None:
    if "timeout" not in parameters:
        return None if remaining is None else now + remaining
    timeout = parameters["timeout"]
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise InvalidArgument(
            "PARAMETER_INVALID",
            f"parameter 'timeout' is {str(timeout)[:64]!r}; it must be a whole number of microseconds, 0 for none",
            field="parameters.timeout",
            value=str(timeout)[:64],
        )
    limits = [limit for limit in (remaining, timeout / 1e6 if timeout else None) if limit is not None]
    return now + min(limits) if limits else None


def _refuse_duplicates(field: str, named: Sequence[Tensor]) -> None:
    if len(named) < 2:
        return
    seen: set[str] = set()
    for tensor in named:
        if tensor.name in seen:
            raise InvalidArgument(
                "TENSOR_REPEATED",
                f"{field} names {tensor.name[:64]!r} twice; name each tensor once",
                field=field,
                tensor=tensor.name,
            )
        seen.add(tensor.name)


def _refuse_parameters(tensor: Tensor) -> None:
    parameters = tensor.parameters
    if not parameters:
        return
    for key in (SHARED_MEMORY, CLASSIFICATION):
        if key in parameters:
            raise InvalidArgument(
                "PARAMETER_UNSUPPORTED",
                f"tensor {tensor.name[:64]!r} asks for {key!r}, which is not served here; "
                + ("send the values themselves" if key == SHARED_MEMORY else "take the logits and rank them"),
                field=f"parameters.{key}",
                tensor=tensor.name,
            )


def _tensor_metadata(spec: TensorSpec) -> oip.ModelMetadataResponse.TensorMetadata:
    return oip.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
