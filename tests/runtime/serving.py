"""The real service in this process, driven as the edges drive it, and a session's whole state to compare."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import numpy as np

from acclimate.runtime.clock import Clock
from acclimate.runtime.config import Config
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.service import Service
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.store.base import Store
from acclimate.runtime.types import CreateSession, InferReply, InferRequest, Scalar, SessionView
from acclimate.runtime.wiring import build_service

MODEL = "reference"
PLENTY: dict[str, Any] = {"refill_ms_per_s": 1e6, "capacity_ms": 1e9}
PLENTY_FOR_ALL: dict[str, Any] = PLENTY | {"process_refill_ms_per_s": 1e6, "process_capacity_ms": 1e9}


def config(mode: str = "synchronous", **sections: dict[str, Any]) -> Config:
    """A configuration with budgets that never bind, unless `sections` say otherwise."""
    scheduler = {"mode": mode} | sections.pop("scheduler", {})
    return Config(scheduler=scheduler, **({"budget": PLENTY_FOR_ALL} | sections))


@asynccontextmanager
async def serving(
    settings: Config | None = None,
    engine: Engine | None = None,
    clock: Clock | None = None,
    store: Store | None = None,
) -> AsyncIterator[Service]:
    """A started service, drained at the end."""
    engine = engine or reference_engine()
    service = build_service(settings or config(), {engine.manifest.name: engine}, clock, store)
    service.start()
    try:
        yield service
    finally:
        await service.drain(30.0)


def request(
    inputs: np.ndarray,
    session: str | None = None,
    request_id: str = "",
    deadline: float | None = None,
    model: str = MODEL,
    **parameters: Scalar,
) -> InferRequest:
    """An inference request for the reference engine, or for the digits with `model="digits"`."""
    if session is not None:
        parameters["sequence_id"] = session
    tensor = "image" if model == "digits" else "features"
    return InferRequest(model, "", request_id, {tensor: inputs}, (), parameters, deadline)


async def predict(service: Service, inputs: np.ndarray, session: str | None = None, **options: Any) -> InferReply:
    return await service.infer(request(inputs, session, **options))


async def opened(
    service: Service, session: str, recipe: str, model: str = MODEL, budget: Any = None, **parameters: float
) -> SessionView:
    return await service.create_session(CreateSession(model, session, recipe, parameters, budget))


def drifted(seed: int, rows: int = 1, features: int = 8, shift: float = 0.7, scale: float = 1.6) -> np.ndarray:
    """Inputs `[rows, features]` whose distribution has moved away from the source's."""
    return (np.random.default_rng(seed).normal(size=(rows, features)) * scale + shift).astype(np.float32)


def session_of(service: Service, session_id: str, model: str = MODEL) -> Session:
    return service._parts.table.get(model, session_id)


def whole(service: Service, session_id: str, model: str = MODEL) -> dict[str, Any]:
    """Everything that a session is: its row, what serves it, what it gathered, remembers and counts."""
    session = session_of(service, session_id, model)
    row = session.cohort.bank.gather([session.row])
    return {f"row.{name}": value.tobytes() for name, value in row.items()} | {
        "folded": None if session.folded is None else [array.tobytes() for array in session.folded.arrays],
        "buffer": [
            (sample.values.tobytes(), sample.key, sample.label)
            for held in (session.buffer._labelled, session.buffer._fresh.values(), session.buffer._unlabelled.values())
            for sample in held
        ],
        "answers": {name: labels.tolist() for name, labels in session.answers._answers.items()},
        "account": deepcopy(session.account),
        "telemetry": session.telemetry,
        "state": session.state,
        "version": session.version,
        "distance": session.distance,
        "recipe": session.cohort.key,
    }


def learnt(service: Service, session_id: str, model: str = MODEL) -> dict[str, np.ndarray]:
    """The session's row of the bank, without its budget."""
    session = session_of(service, session_id, model)
    row = session.cohort.bank.gather([session.row])
    return {name: value[0] for name, value in row.items() if not name.startswith("budget.")}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of what differs between two `whole` states."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def reply_bits(reply: InferReply) -> tuple[Any, ...]:
    """A reply as something that compares equal only if every bit of it is, but for averages over all that was asked."""
    outputs = {name: (array.shape, array.tobytes()) for name, array in reply.outputs.items()}
    parameters = {name: value for name, value in reply.parameters.items() if "estimated" not in name}
    return reply.model, reply.version, reply.id, outputs, parameters
