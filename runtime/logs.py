"""Structured logs on stderr: one JSON object a line, or lines for people. stdout is for machine output only.

Logs of libraries (gRPC, asyncio) come through the same pipe. Arrays and byte strings are never written: their
shape or length is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, TextIO

import numpy as np
import structlog

from acclimate.runtime.config import Logging

MAX_TEXT = 2000
# At level debug these write several lines for each rpc, about themselves.
TALKATIVE = ("asyncio", "grpc")
_STRUCTLOG_KEYS = ("exc_info", "_record", "_from_structlog")


def configure(config: Logging, stream: TextIO | None = None, more: Sequence[structlog.types.Processor] = ()) -> None:
    """Send every log record of the process to `stream` (stderr), at `config.level` and above; `more` add to each."""
    stream = stream or sys.stderr
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        *more,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        without_tensors,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(config.format, stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))


def without_tensors(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace arrays and byte strings by what they are, and cut long texts: a structlog processor."""
    for key, value in event.items():
        if key not in _STRUCTLOG_KEYS:
            event[key] = _described(value)
    return event


def _described(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {list(value.shape)}>"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}..."
    if isinstance(value, Mapping):
        return {key: _described(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_described(inner) for inner in value]
    return value


def _renderers(format_: str, colors: bool) -> list[structlog.types.Processor]:
    if format_ == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
