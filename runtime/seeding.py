"""Beginning sessions at a seed: whether it fits the model, whether the guards let it pass, and planting it."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from acclimate.adapters import budget
from acclimate.adapters.guards import Guards
from acclimate.adapters.layout import Float, Slice
from acclimate.adapters.manifest import Lora, Manifest
from acclimate.adapters.outcome import Outcome
from acclimate.adapters.seeding import check_seed, seed_state
from acclimate.adapters.source import Source
from acclimate.runtime.engines.base import Engine, Folded
from acclimate.runtime.errors import FailedPrecondition, InvalidArgument
from acclimate.runtime.generation.model import LanguageModel, Model
from acclimate.runtime.scheduler.drive import Slicing, answer, waiting
from acclimate.runtime.sessions.session import Session
from acclimate.runtime.types import Seed

FIELD = "seed.tensors"
REMEDIES = {
    Outcome.ROLLED_BACK_TRUST_REGION: "scale the update down, or raise adaptation.trust_radius",
    Outcome.ROLLED_BACK_CANARY: "adapt less, or raise adaptation.canary_tolerance",
    Outcome.ROLLED_BACK_NONFINITE: "its answers are not finite; look at its statistics",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A seed that passed: `theta [P]`, `stats [Q]`, what serves them, theta's distance, and canaries asked."""

    theta: Float
    stats: Float
    folded: Folded
    distance: float
    samples: int


class Seeder:
    """Judges seeds on a thread of its own, one after the other, and lets predictions go first as steps do.

    Args:
        guards: what a seed must pass.
        slice_rows: rows per engine call.
        idle: set while no prediction waits.
        patience: seconds that a call waits for that before it runs all the same.
    """

    def __init__(self, guards: Guards, slice_rows: int, idle: threading.Event, patience: float) -> None:
        self._guards = guards
        self._slicing = Slicing(slice_rows, waiting(idle, patience))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="seed")

    async def prepare(self, engine: Model, seed: Seed) -> Prepared:
        """What a session that begins with `seed` begins with; nothing is changed yet.

        Raises:
            InvalidArgument: the seed does not fit the model. FailedPrecondition: a guard refuses it.
        """
        return await self.judge(engine, *seeded_rows(engine.manifest, engine.source, seed))

    async def judge(self, engine: Model, theta: Float, stats: Float) -> Prepared:
        """What serves `theta [P]`, `stats [Q]`, or FailedPrecondition from the guard that refuses them."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._judged, engine, theta, stats)

    def release(self) -> None:
        """Give the thread up."""
        self._pool.shutdown(wait=False)

    def _judged(self, engine: Model, theta: Float, stats: Float) -> Prepared:
        # A seed may hold any finite number; what overflows because of it is refused, not warned about.
        with np.errstate(all="ignore"):
            if isinstance(engine, LanguageModel):
                verdict, distance = engine.judged(theta)
                asked = len(engine.foundation().units)
            else:
                verdict, distance = self._asked(engine, theta, stats)
                asked = len(engine.source.canary_labels)
            if verdict is not Outcome.APPLIED:
                raise _refused(engine.manifest.name, verdict, distance)
            return Prepared(theta, stats, engine.fold(theta, stats), distance, asked)

    def _asked(self, engine: Engine, theta: Float, stats: Float) -> tuple[Outcome, float]:
        asking = check_seed(self._guards, engine.source, theta, stats)
        try:
            request = next(asking)
            while True:
                request = asking.send(answer(request, engine, self._slicing))
        except StopIteration as finished:
            verdict: tuple[Outcome, float] = finished.value
            return verdict


def plant(session: Session, prepared: Prepared) -> None:
    """Let a new session begin with a seed; it is adapted, at version 1, from now on."""
    cohort, row = session.cohort, [session.row]
    state = seed_state(cohort.recipe, cohort.engine.source, prepared.theta, prepared.stats)
    planted = {n: np.asarray(value)[np.newaxis] for n, value in state.items() if not n.startswith(budget.PREFIX)}
    cohort.bank.write(row, planted)
    session.commit(prepared.folded, prepared.distance)


def seeded_rows(manifest: Manifest, source: Source, seed: Seed) -> tuple[Float, Float]:
    """`theta [P]` and `stats [Q]` of a seed; the source's values where it has none.

    Raises:
        InvalidArgument: a name, shape or value that the model does not take; another rank or alpha; half an update.
    """
    layouts = manifest.parameters, manifest.statistics
    slices = {entry.name: entry for layout in layouts for entry in layout.slices}
    if unknown := sorted(name for name in seed.tensors if name not in slices):
        raise InvalidArgument(
            "TENSOR_UNKNOWN",
            f"seed tensor {unknown[0][:140]!r} is not a parameter or statistic of model {manifest.name!r}"
            f"{f', nor are {len(unknown) - 1} more' if unknown[1:] else ''}; `acclimate bundle inspect` lists them",
            field=FIELD,
            tensor=unknown[0],
        )
    _check_lora(manifest, seed)
    for name, values in seed.tensors.items():
        _check_values(slices[name], values)
    theta, stats = source.theta.copy(), source.stats.copy()
    for row, layout in zip((theta, stats), layouts, strict=True):
        for entry in layout.slices:
            if entry.name in seed.tensors:
                row[entry.span] = seed.tensors[entry.name].reshape(-1)
    return theta, stats


def _check_lora(manifest: Manifest, seed: Seed) -> None:
    given = {update.name: update for update in seed.lora}
    for update in manifest.lora:
        halves = [name for name in (update.a, update.b) if name in seed.tensors]
        if len(halves) == 1:
            raise InvalidArgument(
                "LORA_MISMATCH",
                f"seed has {halves[0]!r} alone; send A and B of {update.name!r} together, or neither",
                field=FIELD,
                tensor=halves[0],
            )
        made_for = given.get(update.name, update)
        if halves and (made_for.rank != update.rank or not math.isclose(made_for.alpha, update.alpha, rel_tol=1e-6)):
            raise _other_update(made_for, update)


def _other_update(given: Lora, own: Lora) -> InvalidArgument:
    return InvalidArgument(
        "LORA_MISMATCH",
        f"seed updates {own.name!r} with rank {given.rank} and alpha {given.alpha:g}; the model has rank {own.rank} "
        f"and alpha {own.alpha:g}; export the bundle with lora:r={given.rank},alpha={given.alpha:g}",
        field="seed.lora",
        module=own.name,
        rank=given.rank,
        alpha=given.alpha,
    )


def _check_values(entry: Slice, values: Float) -> None:
    if values.shape != entry.shape:
        raise InvalidArgument(
            "SHAPE_MISMATCH",
            f"seed tensor {entry.name!r} has shape {list(values.shape)}; the model has {list(entry.shape)}",
            field=FIELD,
            tensor=entry.name,
            shape=list(values.shape),
            expected=list(entry.shape),
        )
    if not np.isfinite(values).all():
        raise InvalidArgument(
            "VALUE_NOT_FINITE",
            f"seed tensor {entry.name!r} holds a NaN or infinity; send finite values",
            field=FIELD,
            tensor=entry.name,
        )
    if entry.kind == "norm.var" and (values < 0).any():
        raise InvalidArgument(
            "VALUE_OUT_OF_RANGE",
            f"seed tensor {entry.name!r} holds {values.min():g}; variances must not be negative",
            field=FIELD,
            tensor=entry.name,
        )


def _refused(model: str, verdict: Outcome, distance: float) -> FailedPrecondition:
    return FailedPrecondition(
        "SEED_REFUSED",
        f"seed for model {model!r} is refused by the guard {verdict.reason!r} at distance {distance:.3g} from the "
        f"source; {REMEDIES[verdict]}",
        guard=verdict.reason,
        distance=distance,
    )
