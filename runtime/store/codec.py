"""A record as bytes and back, bit for bit.

    8 bytes   magic, `ACCLREC` and the format's number
    4 bytes   length of the header, little-endian
    header    JSON, UTF-8: everything of the record but its arrays
    payload   safetensors: the arrays; snapshots are records within it, as bytes
    32 bytes  BLAKE2b of all that precedes

docs/persistence.md describes the fields.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from acclimate.adapters.accuracy import Telemetry
from acclimate.runtime.store.base import Damaged, SessionRecord

MAGIC = b"ACCLREC\x01"
LENGTH = struct.Struct("<I")
DIGEST_BYTES = 32
START = len(MAGIC) + LENGTH.size

_HEADER = tuple(entry.name for entry in fields(SessionRecord) if entry.name not in ("fields", "snapshots"))
# Arrays of this prefix are records of their own, as bytes.
SNAPSHOT = "snapshot/"


def encode(record: SessionRecord) -> bytes:
    """The record's bytes, the same for equal records."""
    header = {name: getattr(record, name) for name in _HEADER}
    header["telemetry"] = asdict(record.telemetry)
    text = json.dumps(header, separators=(",", ":"), sort_keys=True, default=dict).encode()
    # `save` reads memory as it lies; a copy in C order keeps scalars scalar, `ascontiguousarray` would not.
    arrays = {name: np.array(record.fields[name], order="C") for name in sorted(record.fields)}
    for name in sorted(record.snapshots):
        arrays[SNAPSHOT + name] = np.frombuffer(encode(record.snapshots[name]), np.uint8)
    payload = save(arrays)
    content = b"".join((MAGIC, LENGTH.pack(len(text)), text, payload))
    return content + _digest(content)


def decode(content: bytes) -> SessionRecord:
    """The record behind bytes made by `encode`.

    Raises:
        Damaged: the checksum does not hold, or what it covers is not a record of this format.
    """
    header, payload = _parts(content)
    try:
        arrays = load(payload)
        held = [name for name in arrays if name.startswith(SNAPSHOT)]
        snapshots = {name.removeprefix(SNAPSHOT): decode(arrays.pop(name).tobytes()) for name in sorted(held)}
        known = {name: header[name] for name in _HEADER if name in header}
        known["telemetry"] = Telemetry(**known["telemetry"])
        known["drift"] = tuple(float(level) for level in known["drift"])
        return SessionRecord(**known, fields=arrays, snapshots=snapshots)
    except (SafetensorError, TypeError, ValueError, KeyError) as error:
        raise Damaged(f"its checksum holds, but it is no session record ({error})") from error


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if len(content) < START + DIGEST_BYTES or _digest(body) != digest:
        raise Damaged(f"the checksum over its {len(content)} bytes does not hold")
    if body[: len(MAGIC)] != MAGIC:
        raise Damaged(f"it begins with {body[: len(MAGIC)]!r}, not with {MAGIC!r}; another version wrote it")
    (length,) = LENGTH.unpack_from(body, len(MAGIC))
    try:
        header = json.loads(body[START : START + length])
    except ValueError as error:
        raise Damaged(f"its checksum holds, but its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise Damaged("its checksum holds, but its header is not a JSON object")
    return header, body[START + length :]


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
