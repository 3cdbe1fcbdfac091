"""Random operations of clients on many sessions, to run together on one service or for one session alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from acclimate.runtime.clock import ManualClock
from acclimate.runtime.config import Config
from acclimate.runtime.engines.base import Engine
from acclimate.runtime.service import Service
from acclimate.runtime.types import Budget, CreateSession, Feedback
from tests.runtime.serving import reply_bits, request, serving, whole


@dataclass(frozen=True)
class Operation:
    """What a client does with a session: `seed` makes its samples or its label; idling is everyone's."""

    session: str
    kind: str
    seed: int
    rows: int = 1


@dataclass(frozen=True)
class Opening:
    """How a session is opened."""

    recipe: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    budget: Budget | None = None


Bursts = Sequence[Sequence[Operation]]
KINDS = ["predict"] * 9 + ["watch only", "reset", "feedback", "reopen", "idle"]


def operations(sessions: Sequence[str], max_rows: int) -> st.SearchStrategy[list[list[Operation]]]:
    """Bursts of operations; those of one burst are under way at the same time."""
    one = st.builds(
        Operation,
        session=st.sampled_from(sorted(sessions)),
        kind=st.sampled_from(KINDS),
        seed=st.integers(0, 2**16),
        rows=st.integers(1, max_rows),
    )
    return st.lists(st.lists(one, min_size=1, max_size=6), min_size=1, max_size=12)


@dataclass(frozen=True)
class Trace:
    """What a session's clients saw, in their order, and what it is in the end."""

    seen: list[Any]
    state: dict[str, Any]


async def run(
    openings: Mapping[str, Opening], bursts: Bursts, engine: Engine, settings: Config,
    sample: Callable[[int, int], np.ndarray],
) -> dict[str, Trace]:  # fmt: skip
    """Do the operations of the sessions in `openings` on a fresh service; operations of others are left out."""
    clock, model = ManualClock(), engine.manifest.name
    seen: dict[str, list[Any]] = {name: [] for name in openings}
    async with serving(settings, engine, clock) as service:
        for name, opening in openings.items():
            await service.create_session(_creation(model, name, opening))
        for number, burst in enumerate(bursts):
            mine = [(f"{number}.{i}", op) for i, op in enumerate(burst) if op.kind == "idle" or op.session in openings]
            done = await asyncio.gather(*(_do(service, model, clock, name, op, openings, sample) for name, op in mine))
            for (_, op), result in zip(mine, done, strict=True):
                if op.kind != "idle":
                    seen[op.session].append((op.kind, result))
        return {name: Trace(seen[name], whole(service, name, model)) for name in openings}


async def _do(
    service: Service, model: str, clock: ManualClock, name: str, op: Operation,
    openings: Mapping[str, Opening], sample: Callable[[int, int], np.ndarray],
) -> Any:  # fmt: skip
    match op.kind:
        case "idle":
            clock.advance(op.rows)
            return None
        case "reset":
            return await service.reset_session(model, op.session)
        case "feedback":
            labels = [Feedback(f"{op.session}/{op.seed % 12}.{i}", op.seed % 4) for i in range(3)]
            return await service.feedback(model, op.session, labels)
        case "reopen":
            await service.delete_session(model, op.session)
            return await service.create_session(_creation(model, op.session, openings[op.session]))
        case _:
            learn = op.kind == "predict"
            sent = request(
                sample(op.seed, op.rows), op.session, f"{op.session}/{name}", model=model, acclimate_adapt=learn
            )
            return reply_bits(await service.infer(sent))


def _creation(model: str, name: str, opening: Opening) -> CreateSession:
    return CreateSession(model, name, opening.recipe, opening.parameters, opening.budget)
