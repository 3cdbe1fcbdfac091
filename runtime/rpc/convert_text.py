"""Texts through the Open Inference Protocol, as clients of Triton's LLM backends ask for them.

The prompt is `text_input`, what is written `text_output`. How it is drawn may be said by request parameters, by input
tensors of one element, or by a JSON object in `sampling_parameters`, as clients of the vLLM backend do; where several
say it, the first of these counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.oip.v1 import inference_pb2 as oip
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.generation.types import Drawing, GenerateReply, GenerateRequest
from acclimate.runtime.inference import Sequence
from acclimate.runtime.rpc import convert_oip, tensors
from acclimate.runtime.rpc.convert_oip import FINAL, TEXT_INPUT, TEXT_INPUTS, TEXT_OUTPUT
from acclimate.runtime.types import InferRequest

# Names that the vLLM and TensorRT-LLM backends have for the same.
ALIASES = {"stop_words": "stop", "random_seed": "seed"}
KNOWN = frozenset({*(spec.name for spec in TEXT_INPUTS), *ALIASES})


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A text that is asked for: token by token or as a whole, `echo` before it, in the shape that the prompt has."""

    asked: GenerateRequest
    stream: bool
    echo: str
    shape: tuple[int, ...]


def text_request(request: InferRequest, sequence: Sequence) -> TextRequest:
    """The text behind an inference request.

    Raises:
        InvalidArgument: a tensor or parameter is unknown, of another type or shape, or no UTF-8.
    """
    if unknown := sorted(set(request.inputs) - KNOWN):
        raise InvalidArgument(
            "INPUTS_MISMATCH",
            f"input {unknown[0][:64]!r} is unknown; a language model takes {TEXT_INPUT!r} and, if wanted, "
            f"{sorted(KNOWN - {TEXT_INPUT})}",
            input=unknown[0],
        )
    if other := [name for name in request.outputs if name != TEXT_OUTPUT]:
        raise InvalidArgument(
            "OUTPUT_UNKNOWN", f"output {other[0][:64]!r} is unknown; the model has [{TEXT_OUTPUT!r}]", output=other[0]
        )
    if TEXT_INPUT not in request.inputs:
        raise InvalidArgument(
            "INPUTS_MISMATCH", f"there is no input {TEXT_INPUT!r}; send the prompt in it", input=TEXT_INPUT
        )
    prompt = _texts(TEXT_INPUT, request.inputs[TEXT_INPUT])
    said = _said(request)
    drawing = Drawing(
        max_tokens=_number(said, "max_tokens", whole=True),
        temperature=_number(said, "temperature") or 0.0,
        top_p=1.0 if (top_p := _number(said, "top_p")) is None else top_p,
        stop=_stops(said.get("stop", ())),
        seed=_number(said, "seed", whole=True) or 0,
    )
    return TextRequest(
        GenerateRequest(request.model, sequence.session_id, prompt[0], drawing),
        stream=_flag(said, "stream", False),
        echo="" if _flag(said, "exclude_input_in_output", True) else prompt[0],
        shape=request.inputs[TEXT_INPUT].shape,
    )


def text_response(
    request: InferRequest, version: str, text: TextRequest, written: str, last: GenerateReply, *, raw: bool, final: bool
) -> oip.ModelInferResponse:
    """A part of a text, or all of it; `last` is the latest message of it, `final` says that no other follows."""
    array = np.empty(text.shape, object)
    array.reshape(-1)[0] = written.encode()
    message = oip.ModelInferResponse(model_name=request.model, model_version=version, id=request.id)
    output = message.outputs.add(name=TEXT_OUTPUT, datatype="BYTES", shape=array.shape)
    if raw:
        message.raw_output_contents.append(tensors.to_raw(array))
    else:
        output.contents.CopyFrom(tensors.to_typed(array))
    facts: dict[str, Any] = {"acclimate_version": last.version, FINAL: final}
    if text.asked.session_id is not None:
        facts["acclimate_session"] = text.asked.session_id
    if last.token is not None and text.stream:
        facts |= {"acclimate_logprob": last.token.logprob, "acclimate_entropy": last.token.entropy}
    if last.usage is not None:
        facts |= {
            "acclimate_finish_reason": last.finish,
            "acclimate_prompt_tokens": last.usage.prompt_tokens,
            "acclimate_generated_tokens": last.usage.generated_tokens,
        }
    for name, value in facts.items():
        message.parameters[name].CopyFrom(convert_oip.parameter(value))
    return message


def _said(request: InferRequest) -> dict[str, Any]:
    """Everything said about the drawing, by its name."""
    said: dict[str, Any] = {}
    given = {name: value for name, value in request.parameters.items() if name in KNOWN}
    tensors_given = {name: _values(name, array) for name, array in request.inputs.items() if name != TEXT_INPUT}
    written = given.get("sampling_parameters", tensors_given.get("sampling_parameters", [""])[0])
    for source in (_json(written), tensors_given, given):
        for name, value in source.items():
            if name != "sampling_parameters":
                said[ALIASES.get(name, name)] = value
    return said


def _json(written: Any) -> dict[str, Any]:
    """The object in `sampling_parameters`; its values may be texts that say numbers."""
    if not written:
        return {}
    try:
        document = json.loads(written)
    except (TypeError, ValueError):
        document = None
    if not isinstance(document, dict):
        raise _invalid("sampling_parameters", written, "a JSON object")
    allowed = sorted(KNOWN - {TEXT_INPUT, "sampling_parameters"})
    for name in document:
        if name not in allowed:
            close = get_close_matches(name, allowed, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {allowed}"
            raise InvalidArgument(
                "PARAMETER_UNKNOWN",
                f"sampling_parameters has {name[:64]!r}, which is unknown; {hint}",
                parameter="sampling_parameters",
            )
    return document


def _values(name: str, array: NDArray[Any]) -> list[Any]:
    """A tensor's elements, texts decoded."""
    return list(_texts(name, array, many=True)) if array.dtype == object else list(array.reshape(-1).tolist())


def _texts(name: str, array: NDArray[Any], many: bool = False) -> tuple[str, ...]:
    if array.dtype != object:
        raise InvalidArgument(
            "DATATYPE_MISMATCH", f"input {name!r} has to be BYTES: text in UTF-8", input=name, expected="BYTES"
        )
    if array.size != 1 and not many:
        raise InvalidArgument(
            "SHAPE_MISMATCH",
            f"input {name!r} has shape {list(array.shape)}; send one text, of shape [1] or [1, 1]",
            input=name,
            shape=list(array.shape),
        )
    texts = []
    for value in array.reshape(-1):
        try:
            texts.append(bytes(value).decode())
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                "TEXT_ENCODING_INVALID",
                f"input {name!r} is not UTF-8: byte {value[error.start]:#04x} at {error.start} ({error.reason})",
                input=name,
                position=error.start,
            ) from error
    return tuple(texts)


def _stops(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise _invalid("stop", value, "a text, or several")
    return tuple(values)


def _number(said: Mapping[str, Any], name: str, whole: bool = False) -> Any:
    """A number, from a number, a text that says one, or a list of one of these; None if nothing is said."""
    value = _one(said.get(name))
    if value is None:
        return None
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or (whole and not number.is_integer()):
        raise _invalid(name, value, "a whole number" if whole else "a number")
    return int(value) if whole else number


def _flag(said: Mapping[str, Any], name: str, default: bool) -> bool:
    value = _one(said.get(name))
    if value is None:
        return default
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _invalid(name, value, "true or false")
    return value


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _invalid(name: str, value: object, allowed: str) -> InvalidArgument:
    return InvalidArgument(
        "PARAMETER_INVALID",
        f"{name} is {repr(value)[:80]}; it has to be {allowed}",
        parameter=name,
        value=repr(value)[:64],
    )
