"""Messages of the model repository extension <-> what the repository takes and tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from acclimate.oip.v1 import model_repository_pb2 as pb
from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.repository.control import READY, Indexed
from acclimate.runtime.repository.moving import Unfit

VERSION, SESSIONS, CONFIG, FILES, DEPENDENTS = (
    "acclimate_model_version",
    "acclimate_sessions",
    "config",
    "file:",
    "unload_dependents",
)
MAX_CONFIG_CHARACTERS = 16_384

Parameters = Mapping[str, pb.ModelRepositoryParameter]


def index_response(entries: Iterable[Indexed], ready: bool) -> pb.RepositoryIndexResponse:
    """The message for an index; `ready` leaves out what is not served."""
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(name=e.name, version=e.version, state=e.state, reason=e.reason)
            for e in entries
            if not ready or e.state == READY
        ]
    )


def load_request(message: pb.RepositoryModelLoadRequest) -> tuple[str, str, Unfit]:
    """Model, version (empty for the highest), and what becomes of sessions that cannot be carried over.

    Raises:
        InvalidArgument: a repository is named, or a parameter is unknown, of another type or not a value it may have.
    """
    refuse_repository(message.repository_name)
    given = dict(_given(message.parameters))
    if any(name.startswith(FILES) for name in given):
        raise InvalidArgument(
            "PARAMETER_UNSUPPORTED",
            f"parameters {FILES!r} carry files; bundles come from the operator's directories alone",
            parameter=FILES,
        )
    if CONFIG in given:
        given = _configured(given.pop(CONFIG)) | given
    _refuse_unknown(given, (VERSION, SESSIONS))
    return message.model_name, _text(given, VERSION), _unfit(given, tuple(Unfit))


def unload_request(message: pb.RepositoryModelUnloadRequest) -> tuple[str, Unfit]:
    """Model, and what becomes of its sessions.

    Raises:
        InvalidArgument: as `load_request`.
    """
    refuse_repository(message.repository_name)
    given = dict(_given(message.parameters))
    _refuse_unknown(given, (SESSIONS, DEPENDENTS))
    return message.model_name, _unfit(given, (Unfit.REFUSE, Unfit.DROP))


def refuse_repository(name: str) -> None:
    """There is one repository, and it has no name.

    Raises:
        InvalidArgument: one is named.
    """
    if name:
        raise InvalidArgument(
            "PARAMETER_UNSUPPORTED",
            f"repository_name is {name[:64]!r}; there is one repository, leave it empty",
            field="repository_name",
        )


def _given(parameters: Parameters) -> Iterable[tuple[str, object]]:
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        yield name, None if choice is None else getattr(value, choice)


def _configured(text: object) -> dict[str, object]:
    """Parameters inside a Triton model configuration, which is all that Triton's own clients can send."""
    try:
        if not isinstance(text, str) or len(text) > MAX_CONFIG_CHARACTERS:
            raise ValueError(f"a JSON text of at most {MAX_CONFIG_CHARACTERS} characters is expected")
        document = json.loads(text)
        if not isinstance(document, dict) or set(document) != {"parameters"}:
            raise ValueError("of a configuration, only parameters can be given; the bundle says the rest")
        pairs = document["parameters"].items()
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidArgument(
            "PARAMETER_INVALID",
            f"parameter 'config' cannot be used ({str(error)[:160]}); send "
            '{"parameters": {"acclimate_sessions": {"string_value": "reset"}}}, or leave it out',
            parameter=CONFIG,
        ) from error
    return {name: value.get("string_value") if isinstance(value, dict) else value for name, value in pairs}


def _refuse_unknown(given: Mapping[str, object], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise InvalidArgument(
                "PARAMETER_UNKNOWN", f"parameter {name[:64]!r} is unknown; known are {list(known)}", parameter=name[:64]
            )


def _text(given: Mapping[str, object], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise InvalidArgument(
            "PARAMETER_TYPE", f"parameter {name!r} is {str(value)[:64]!r}; it must be a string", parameter=name
        )
    return value


def _unfit(given: Mapping[str, object], choices: tuple[Unfit, ...]) -> Unfit:
    word = _text(given, SESSIONS) or Unfit.REFUSE.value
    if word not in [choice.value for choice in choices]:
        raise InvalidArgument(
            "PARAMETER_INVALID",
            f"parameter {SESSIONS!r} is {word[:64]!r}; use one of {[choice.value for choice in choices]}",
            parameter=SESSIONS,
        )
    return Unfit(word)
