"""Resource names: `models/{model}`, `models/{model}/sessions/{session}`, and below it `snapshots/{snapshot}`.

`-` stands for every model.

Whether a model or session of that name exists, or could, is for the service to say.
"""

from __future__ import annotations

from acclimate.runtime.errors import InvalidArgument

ANY = "-"


def model_name(model: str) -> str:
    """`models/{model}`."""
    return f"models/{model}"


def session_name(model: str, session_id: str) -> str:
    """`models/{model}/sessions/{session}`."""
    return f"models/{model}/sessions/{session_id}"


def snapshot_name(model: str, session_id: str, snapshot_id: str) -> str:
    """`models/{model}/sessions/{session}/snapshots/{snapshot}`."""
    return f"{session_name(model, session_id)}/snapshots/{snapshot_id}"


def parse_snapshot(name: str, field: str = "name") -> tuple[str, str, str]:
    """Model, session id and snapshot id of a snapshot's name.

    Raises:
        InvalidArgument: `name` is not of the form `models/{model}/sessions/{session}/snapshots/{snapshot}`.
    """
    parts = name.split("/")
    kinds = tuple(parts[::2])
    if len(parts) != 6 or kinds != ("models", "sessions", "snapshots") or not all(parts) or parts[1] == ANY:
        raise _malformed(name, field, "models/{model}/sessions/{session}/snapshots/{snapshot}")
    return parts[1], parts[3], parts[5]


def parse_session(name: str, field: str = "name") -> tuple[str, str]:
    """Model and session id of a session's name.

    Raises:
        InvalidArgument: `name` is not of the form `models/{model}/sessions/{session}`.
    """
    parts = name.split("/")
    if len(parts) != 4 or (parts[0], parts[2]) != ("models", "sessions") or not all(parts) or parts[1] == ANY:
        raise _malformed(name, field, "models/{model}/sessions/{session}")
    return parts[1], parts[3]


def parse_model(name: str, field: str = "parent") -> str:
    """The model of a model's name.

    Raises:
        InvalidArgument: `name` is not of the form `models/{model}`, or stands for every model.
    """
    model = parse_models(name, field)
    if model is None:
        raise _malformed(name, field, "models/{model} of one model")
    return model


def parse_models(name: str, field: str = "parent") -> str | None:
    """The model of a model's name, or None for `models/-`.

    Raises:
        InvalidArgument: `name` is neither `models/{model}` nor `models/-`.
    """
    parts = name.split("/")
    if len(parts) != 2 or parts[0] != "models" or not parts[1]:
        raise _malformed(name, field, "models/{model}, or models/- for every model")
    return None if parts[1] == ANY else parts[1]


def _malformed(name: str, field: str, form: str) -> InvalidArgument:
    shown = name if len(name) <= 128 else f"{name[:125]}..."
    return InvalidArgument("NAME_INVALID", f"{field} is {shown!r}; it must be {form}", field=field, value=shown)
