"""Logs are structured, complete and free of tensors."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
import structlog

from acclimate.runtime import logs
from acclimate.runtime.config import Logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(format_: Literal["json", "console"], level: Literal["debug", "info"] = "info") -> str:
    stream = io.StringIO()
    logs.configure(Logging(level=level, format=format_), stream)
    log = structlog.stdlib.get_logger("acclimate.test")
    theta = np.arange(1000, dtype=np.float32)
    log.info("step", theta=theta, raw=b"12345", nested={"rows": [theta]}, text="x" * 5000, model="digits")
    log.debug("detail")
    logging.getLogger("grpc").warning("from %s", "a library")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed", inputs=theta)
    return stream.getvalue()


def test_json_lines_hold_no_tensor() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in written("json").splitlines()]
    step, library, failed = lines
    assert step["theta"] == "<float32 [1000]>"
    assert step["nested"] == {"rows": ["<float32 [1000]>"]}
    assert step["raw"] == "<5 bytes>"
    assert len(step["text"]) < 2100
    assert (step["event"], step["level"], step["logger"], step["model"]) == ("step", "info", "acclimate.test", "digits")
    assert (library["event"], library["logger"]) == ("from a library", "grpc")
    assert "ValueError: why" in failed["exception"]


def test_console_lines_hold_no_tensor_and_no_colour_off_a_terminal() -> None:
    text = written("console")
    assert "999" not in text
    assert "\x1b[" not in text
    assert "ValueError: why" in text


def test_the_level_holds() -> None:
    assert "detail" not in written("json", "info")
    assert "detail" in written("json", "debug")
