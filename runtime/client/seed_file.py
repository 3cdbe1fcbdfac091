"""What a session may begin with, read from disk: a session's safetensors file, or a PEFT LoRA directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from acclimate.adapters.layout import Float
from acclimate.adapters.manifest import Lora
from acclimate.runtime.client.channel import DEFAULT_MAX_MESSAGE_BYTES
from acclimate.runtime.client.errors import ClientError
from acclimate.runtime.client.peft_names import ADAPTER_FILE, CONFIG_FILE, PICKLE_FILE
from acclimate.runtime.client.peft_read import seed_of
from acclimate.runtime.types import Seed

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CONVERT = (
    "convert it where you trust it: safetensors.torch.save_file(torch.load(path, weights_only=True), "
    "'adapter_model.safetensors')"
)
DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def read_seed(path: Path | str) -> Seed:
    """What a session may begin with, for `create_session(seed=...)`.

    Args:
        path: a safetensors file of tensors by the source model's names, as `acclimate session export` writes it; or a
            directory as PEFT's `save_pretrained` leaves it (`adapter_config.json`, `adapter_model.safetensors`).

    Raises:
        ClientError: INVALID_ARGUMENT with reason `SEED_UNREADABLE` where the files are missing, damaged or pickles,
            `SEED_UNSUPPORTED` where they hold another kind of adapter. Whether a seed fits a model the daemon says.
    """
    where = Path(path)
    if not where.is_dir():
        return _session_file(where)
    if not (where / CONFIG_FILE).is_file():
        raise unreadable(where, f"it has no {CONFIG_FILE}; give a PEFT directory or a safetensors file")
    if not (where / ADAPTER_FILE).is_file():
        if (where / PICKLE_FILE).exists():
            raise unreadable(where, f"{PICKLE_FILE} is a pickle, which may run code when opened; {CONVERT}")
        raise unreadable(where, f"it has no {ADAPTER_FILE}; save the adapter again with PEFT")
    try:
        config = json.loads(_content(where / CONFIG_FILE))
    except ValueError as error:
        raise unreadable(where / CONFIG_FILE, f"it is not JSON ({error})") from error
    tensors, _ = read_tensors(where / ADAPTER_FILE)
    return seed_of(where, config, tensors)


def read_tensors(path: Path) -> tuple[dict[str, Float], dict[str, str]]:
    """Tensors by name as float32, integers left out, and the metadata of a safetensors file.

    Raises:
        ClientError: INVALID_ARGUMENT, the file cannot be read or holds a type that is neither integer nor float.
    """
    content = _content(path)
    try:
        entries = _parsed(content)
    except SafetensorError as error:
        advice = f"; a pickle is not opened: {CONVERT}" if path.suffix in PICKLES else ""
        raise unreadable(path, f"it is not a safetensors file ({error}){advice}") from error
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    tensors = {name: _float32(path, name, entry) for name, entry in entries if not _integer(entry["dtype"])}
    return tensors, metadata


def unreadable(path: Path, why: str) -> ClientError:
    """The error for a seed that cannot be read."""
    return ClientError("INVALID_ARGUMENT", "SEED_UNREADABLE", f"{str(path)!r}: {why}", {"path": str(path)})


def _session_file(path: Path) -> Seed:
    tensors, metadata = read_tensors(path)
    try:
        updates = tuple(_update(**entry) for entry in json.loads(metadata.get("lora", "[]")))
    except (TypeError, ValueError) as error:
        raise unreadable(path, f"its metadata 'lora' is malformed ({error}); export the session again") from error
    return Seed(tensors, updates)


def _update(name: str, a: str, b: str, rank: int, alpha: float) -> Lora:
    return Lora(str(name), str(a), str(b), int(rank), float(alpha))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(DEFAULT_MAX_MESSAGE_BYTES + 1)
    except OSError as error:
        raise unreadable(path, f"it cannot be read ({error.strerror})") from error
    if len(content) > DEFAULT_MAX_MESSAGE_BYTES:
        raise unreadable(path, f"it is larger than the {DEFAULT_MAX_MESSAGE_BYTES} bytes that one message may have")
    return content


def _parsed(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Names in order, and shape, dtype and bytes; unlike the package's NumPy functions this reads bfloat16."""
    entries: list[tuple[str, dict[str, Any]]] = deserialize(content)  # type: ignore[no-untyped-call]
    return sorted(entries, key=lambda entry: entry[0])


def _integer(dtype: str) -> bool:
    """Batch norms count their batches; a session has no use for that."""
    return dtype.startswith(("I", "U", "BOOL"))


def _float32(path: Path, name: str, entry: dict[str, Any]) -> Float:
    shape, raw = tuple(entry["shape"]), bytes(entry["data"])
    if entry["dtype"] == "BF16":
        wide: NDArray[Any] = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif entry["dtype"] in DTYPES:
        wide = np.frombuffer(raw, DTYPES[entry["dtype"]])
    else:
        raise unreadable(path, f"tensor {name!r} is {entry['dtype']}; use float32, float16, bfloat16 or float64")
    # What float32 cannot hold becomes an infinity, which the daemon refuses by the tensor's name.
    with np.errstate(over="ignore"):
        result: Float = wide.astype(np.float32).reshape(shape)
    return result
