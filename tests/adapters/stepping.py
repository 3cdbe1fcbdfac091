"""Running steps of the driver on the NumPy engine, and twisting its answers where a test needs that."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

import numpy as np

from acclimate.adapters.bank import State
from acclimate.adapters.guards import Guards
from acclimate.adapters.moves import Move, Moved, Seen
from acclimate.adapters.recipes import Recipe, build, template
from acclimate.adapters.requests import Forward, Gradient, Reply, Request
from acclimate.adapters.source import Source
from acclimate.adapters.step import Batch, StepResult, adaptation_step
from acclimate.runtime.engines.reference import ReferenceEngine, reference_engine
from acclimate.runtime.scheduler.drive import Slicing, answer

WHOLE = Slicing(rows=10_000, pause=lambda: None)
Twist = Callable[[Request, Reply], Reply]


def recipe(name: str, engine: ReferenceEngine, guards: Guards | None = None, **parameters: float) -> Recipe:
    return build(name, parameters, engine.source, guards or Guards())


def fresh(chosen: Recipe, engine: ReferenceEngine, sessions: int) -> State:
    return {name: np.stack([value] * sessions) for name, value in template(chosen, engine.source).items()}


def step(
    chosen: Recipe,
    state: State,
    inputs: np.ndarray,
    group: np.ndarray,
    engine: ReferenceEngine | None = None,
    twist: Twist | None = None,
    asked: list[Request] | None = None,
    labels: np.ndarray | None = None,
) -> StepResult:
    """One step; every sample comes with a label, by default the frozen model's answer."""
    engine = engine or reference_engine()
    labels = engine.frozen(inputs).argmax(axis=1) if labels is None else labels
    machine = adaptation_step(chosen, engine.source, state, Batch(inputs, group, labels))
    try:
        request = next(machine)
        while True:
            if asked is not None:
                asked.append(request)
            reply = answer(request, engine, WHOLE)
            request = machine.send(twist(request, reply) if twist else reply)
    except StopIteration as finished:
        return finished.value


def first_move(chosen: Recipe, engine: ReferenceEngine, inputs: np.ndarray) -> Moved | None:
    """What the move of a recipe proposes at the first step of one session; None where the recipe has no move."""
    if chosen.move is None:
        return None
    move: Move = chosen.move
    seen: list[Moved] = []

    class Listening:
        template = move.template

        def propose(self, source: Source, state: State, shown: Seen) -> Generator[Request, Reply, Moved]:
            moved = yield from move.propose(source, state, shown)
            seen.append(moved)
            return moved

    listening = replace(chosen, move=Listening())
    step(listening, fresh(listening, engine, 1), inputs, np.zeros(len(inputs), np.intp), engine)
    return seen[0]


def stream(seed: int, rows: int, features: int = 8, shift: float = 0.7, scale: float = 1.6) -> np.ndarray:
    """Features whose distribution has moved away from the source's."""
    return (np.random.default_rng(seed).normal(size=(rows, features)) * scale + shift).astype(np.float32)


def rows_of(requests: list[Request], kind: type[Forward] | type[Gradient]) -> list[int]:
    return [len(request.rows) for request in requests if isinstance(request, kind)]
