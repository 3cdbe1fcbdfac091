"""What an inference request asks for, checked against the model before anything is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.manifest import Manifest
from acclimate.runtime.datatypes import accepted, name_of, widened
from acclimate.runtime.errors import InvalidArgument, NotFound
from acclimate.runtime.types import InferRequest, Scalar

OURS = (
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "acclimate_adapt",
    "acclimate_recipe",
    "acclimate_budget_ms",
    "acclimate_min_version",
    "acclimate_resent",
)
# A client may send this many times the batch size in one request.
REQUEST_BATCHES = 16
# Triton's `priority`: 1 is served first; a request that names none, or one that does not exist, has the default.
PRIORITY_LEVELS, DEFAULT_PRIORITY = 3, 2


@dataclass(frozen=True, slots=True)
class Sequence:
    """The session part of a request, from Triton's sequence extension and our own parameters.

    `session_id` is None for stateless requests; `start` opens or resets, `end` closes; `learn` says whether
    the samples may be learnt from; `recipe` is what a session that `start` opens should run. `allowance` is how many
    milliseconds steps over the samples may take; `min_version` the version of the session's parameters that may
    answer at the earliest; `priority` 1 to `PRIORITY_LEVELS`, 1 first. `resent`: the request may have been answered
    before, under its id.
    """

    session_id: str | None
    start: bool
    end: bool
    learn: bool
    recipe: str | None
    allowance: float = math.inf
    min_version: int = 0
    priority: int = DEFAULT_PRIORITY
    resent: bool = False


STATELESS = Sequence(session_id=None, start=False, end=False, learn=True, recipe=None)


def sequence_of(parameters: Mapping[str, Scalar]) -> Sequence:
    """Read the request parameters. Unknown ones are ignored unless they look like ours.

    Raises:
        InvalidArgument: a parameter of ours is misspelt, of the wrong type, or makes no sense with the others.
    """
    if not parameters:
        return STATELESS
    for name in parameters:
        if name.startswith(("acclimate_", "sequence_")) and name not in OURS:
            close = get_close_matches(name, OURS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {list(OURS)}"
            raise InvalidArgument("PARAMETER_UNKNOWN", f"request parameter {name!r} is unknown; {hint}", parameter=name)
    raw = parameters.get("sequence_id", 0)
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise _wrong_type("sequence_id", raw, "a string or an integer")
    session_id = None if raw in (0, "", "0") else str(raw)
    budget = _count(parameters, "acclimate_budget_ms")
    priority = _count(parameters, "priority") or 0
    sequence = Sequence(
        session_id=session_id,
        start=_flag(parameters, "sequence_start", default=False),
        end=_flag(parameters, "sequence_end", default=False),
        # What may cost nothing is not learnt from.
        learn=_flag(parameters, "acclimate_adapt", default=True) and budget != 0,
        recipe=_text(parameters, "acclimate_recipe"),
        allowance=math.inf if budget is None else budget,
        min_version=_count(parameters, "acclimate_min_version") or 0,
        priority=priority if 0 < priority <= PRIORITY_LEVELS else DEFAULT_PRIORITY,
        resent=_flag(parameters, "acclimate_resent", default=False),
    )
    if sequence.min_version and (session_id is None or sequence.start):
        raise InvalidArgument(
            "MIN_VERSION_WITHOUT_SESSION",
            "acclimate_min_version only means something for a session that exists: send its sequence_id, and no "
            "sequence_start",
            parameter="acclimate_min_version",
        )
    if session_id is None and (sequence.start or sequence.end):
        raise InvalidArgument(
            "SEQUENCE_ID_MISSING",
            "sequence_start or sequence_end is set without sequence_id; send the session's id",
        )
    if sequence.recipe is not None and not sequence.start:
        raise InvalidArgument(
            "RECIPE_WITHOUT_START",
            "acclimate_recipe only means something with sequence_start=true",
            parameter="acclimate_recipe",
        )
    return sequence


def max_rows(max_batch: int) -> int:
    """Samples that one request may hold, for `max_batch` that are predicted together."""
    return REQUEST_BATCHES * max_batch


def check_version(manifest: Manifest, version: str) -> None:
    """Whether a request may mean this model; the empty version means any.

    Raises:
        NotFound: the model has no such version.
    """
    if version not in ("", manifest.version):
        raise NotFound(
            "MODEL_VERSION_NOT_FOUND",
            f"model {manifest.name!r} has version {manifest.version!r}, not {version!r}",
            version=version,
        )


def checked_inputs(request: InferRequest, manifest: Manifest, max_rows: int) -> NDArray[Any]:
    """The one input tensor `[B, ...]` of a request, in the model's datatype.

    Raises:
        NotFound: the model has no such version. InvalidArgument: tensor name, datatype, shape or value is not
            what the model takes, or an unknown output is asked for.
    """
    check_version(manifest, request.version)
    known = [spec.name for spec in manifest.outputs]
    for name in request.outputs:
        if name not in known:
            raise InvalidArgument("OUTPUT_UNKNOWN", f"output {name!r} is unknown; the model has {known}", output=name)
    spec = manifest.inputs[0]
    if set(request.inputs) != {spec.name}:
        raise InvalidArgument(
            "INPUTS_MISMATCH",
            f"inputs are {sorted(request.inputs)}; the model takes exactly [{spec.name!r}]",
            inputs=sorted(request.inputs),
        )
    tensor = request.inputs[spec.name]
    given = name_of(tensor)
    if given not in accepted(spec.datatype):
        raise InvalidArgument(
            "DATATYPE_MISMATCH",
            f"input {spec.name!r} has datatype {given}; the model takes {' or '.join(accepted(spec.datatype))}",
            input=spec.name,
            datatype=given,
            expected=spec.datatype,
        )
    expected = spec.shape[1:]
    if tensor.ndim != len(spec.shape) or tensor.shape[1:] != expected or not 1 <= len(tensor) <= max_rows:
        raise InvalidArgument(
            "SHAPE_MISMATCH",
            f"input {spec.name!r} has shape {list(tensor.shape)}; the model takes [B, "
            f"{', '.join(map(str, expected))}] with B from 1 to {max_rows}",
            input=spec.name,
            shape=list(tensor.shape),
            expected=list(spec.shape),
        )
    tensor = widened(tensor, spec.datatype)
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        position = [int(axis[0]) for axis in np.nonzero(~np.isfinite(tensor))]
        raise InvalidArgument(
            "VALUE_NOT_FINITE",
            f"input {spec.name!r} holds {tensor[tuple(position)]} at {position}; send finite values",
            input=spec.name,
            position=position,
        )
    return tensor


def _flag(parameters: Mapping[str, Scalar], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _wrong_type(name, value, "a bool")
    return value


def _count(parameters: Mapping[str, Scalar], name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong_type(name, value, "a whole number, not negative")
    return value


def _text(parameters: Mapping[str, Scalar], name: str) -> str | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong_type(name, value, "a string")
    return value


def _wrong_type(name: str, value: object, expected: str) -> InvalidArgument:
    shown = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)
    return InvalidArgument(
        "PARAMETER_TYPE", f"request parameter {name!r} is {shown}; it must be {expected}", parameter=name
    )
