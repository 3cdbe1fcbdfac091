"""What a session has learnt, as a safetensors file."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from safetensors.numpy import save

from acclimate.runtime.types import ExportedSession


def state_bytes(exported: ExportedSession) -> bytes:
    """Parameters and statistics `float32` by name; model, session, version and low-rank updates as metadata.

    The names are those of the source model, so `load_state_dict(load_file(path), strict=False)` adapts a torch
    module as the session was adapted.
    """
    tensors = {tensor.name: tensor.values for tensor in (*exported.parameters, *exported.statistics)}
    metadata = {
        "format": "acclimate.session",
        "model": exported.model,
        "model_version": exported.model_version,
        "session": exported.session_id,
        "version": str(exported.version),
        "parameters_digest": exported.parameters_digest,
        "lora": json.dumps([asdict(update) for update in exported.lora]),
    }
    return save(tensors, metadata)


def write_state(exported: ExportedSession, path: Path) -> None:
    """Write `state_bytes` beside `path` and rename, so that a reader finds the whole file or none.

    Raises:
        OSError: the folder cannot be written to.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        staged = Path(file.name)
        try:
            file.write(state_bytes(exported))
            file.flush()
            staged.chmod(0o644)
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
