"""For everything that learns: the stream on which it would hurt, and what stops it. A new recipe fails until named.

As in `test_harm.py`, on the digits bundle; `tent` and `eata` are there, labels that lie are in `test_lies.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from acclimate.adapters.fields import THETA
from acclimate.adapters.guards import Guards
from acclimate.adapters.recipes import RECIPES, build
from acclimate.adapters.recipes.restored import NEVER_LEARNS
from acclimate.runtime.engines.onnx import OnnxEngine
from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.types import EventKind
from tests.adapters.stepping import fresh, step, stream
from tests.hostile.test_harm import BOUND, CLEAN_STEPS, DAMAGE, GUARDS_ALWAYS, GUARDS_OFF, STREAMS, suffer

NO_GUARDS = Guards(trust_radius=1e9, collapse_ratio=0.0, canary_every=0)


@dataclass(frozen=True)
class Hurt:
    """Parameters with which static, unguarded, costs at least `damage` of accuracy on clean digits."""

    damage: float
    parameters: dict[str, float] = field(default_factory=dict)


# What moves the parameters that a session serves.
LEARNING: dict[str, Hurt] = {
    "auto": Hurt(0.5, {"lr": 0.5}),
    "cotta": Hurt(0.1, {"lr": 0.05, "inertia": 0.5, "views": 2}),
    "deyo": Hurt(0.5, {"lr": 0.05}),
    "eta": Hurt(0.2, {"lr": 0.05}),
    "foa": Hurt(0.5, {"radius": 0.3}),
    "ostta": Hurt(0.1, {"lr": 0.05}),
    "petal": Hurt(0.2, {"lr": 0.05, "inertia": 0.2, "views": 2}),
    "rdumb": Hurt(0.2, {"lr": 0.05}),
    "roid": Hurt(0.5, {"lr": 0.05}),
    "rotta": Hurt(0.5, {"lr": 0.5, "pace": 0.2}),
    "sar": Hurt(0.5, {"lr": 0.05}),
    "tempo": Hurt(0.2, {"lr": 0.05}),
    "zoa": Hurt(0.5, {"lr": 0.05}),
}
# What follows statistics or answers alone, and so is as the stream is: a clean one undoes it. `memo` learns for the
# length of a request and forgets.
FOLLOWING = {"label_shift", "lame", "memo", "norm", "norm_alpha", "norm_ema"}
# The digits bundle has no features; on the reference engine below.
NEED_FEATURES = {"cafa", "t3a"}
ELSEWHERE = {*DAMAGE, "supervised"}
# Clean steps until what a recipe keeps of the past has faded: momentum 0.9 a batch, and a memory of 64 samples.
SLOW_TO_FORGET = {"norm_ema": 24, "rotta": 24}
FEWER_VIEWS = {"memo": {"views": 4}}
QUICK = {("foa", "static"), ("norm_ema", "lens cap")}


def test_for_every_recipe_it_is_said_what_could_hurt_it() -> None:
    named = [*LEARNING, *FOLLOWING, *NEED_FEATURES, *ELSEWHERE, *NEVER_LEARNS]
    assert sorted(named) == sorted(RECIPES)


CASES = [
    pytest.param(name, kind, marks=[] if (name, kind) in QUICK else [pytest.mark.slow])
    for name in sorted({*LEARNING, *FOLLOWING})
    for kind in STREAMS
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_with_the_defaults_nothing_is_lost(digits_engine: OnnxEngine, name: str, kind: str) -> None:
    clean = SLOW_TO_FORGET.get(name, CLEAN_STEPS)
    after = asyncio.run(suffer(digits_engine, name, STREAMS[kind], {}, clean, **FEWER_VIEWS.get(name, {})))
    assert after.view.updates > 0
    assert after.final >= after.frozen - BOUND


GUARDED = [pytest.param(name, marks=[] if name == "zoa" else [pytest.mark.slow]) for name in LEARNING]


@pytest.mark.parametrize("name", GUARDED)
def test_guards_hold_what_is_reckless_and_say_so(digits_engine: OnnxEngine, name: str) -> None:
    parameters = LEARNING[name].parameters
    after = asyncio.run(suffer(digits_engine, name, STREAMS["static"], GUARDS_ALWAYS, **parameters))
    assert after.final >= after.frozen - BOUND
    refused = Counter(event.reason for event in after.events if event.kind is EventKind.ROLLED_BACK)
    assert refused == after.model.rollbacks
    assert refused.total() > 0
    back = Counter(event.reason for event in after.events if event.kind is EventKind.RESTORED)
    assert back == after.model.restorations
    assert back.total() > 0


@pytest.mark.parametrize("name", GUARDED)
def test_without_guards_the_same_stream_does_lasting_damage(digits_engine: OnnxEngine, name: str) -> None:
    """Or the test above would show nothing."""
    hurt = LEARNING[name]
    after = asyncio.run(suffer(digits_engine, name, STREAMS["static"], GUARDS_OFF, **hurt.parameters))
    assert after.view.rollbacks == 0
    assert after.final <= after.frozen - hurt.damage


def left_of(name: str, guards: Guards, **parameters: float) -> float:
    """Share of clean rows that are answered as the source does after 30 steps of one repeated row."""
    engine = reference_engine()
    chosen = build(name, {"batch_rows": 32} | parameters, engine.source, guards)
    state = fresh(chosen, engine, 1)
    ones = np.repeat(stream(3, 1), 32, axis=0) + 0.1 * stream(4, 32)
    for _ in range(30):
        result = step(chosen, state, ones, np.zeros(32, np.intp), engine)
        state = fresh(chosen, engine, 1) if result.restore[0] else result.state
    clean = np.random.default_rng(9).normal(size=(400, 8)).astype(np.float32)
    served = engine.predict(clean, engine.fold(state[THETA][0], engine.source.stats))
    return float((served.argmax(axis=1) == engine.frozen(clean).argmax(axis=1)).mean())


def test_cafa_is_held_by_the_guards_where_it_would_hurt() -> None:
    reckless = {"lr": 0.5}
    assert left_of("cafa", NO_GUARDS, **reckless) < 0.7
    assert left_of("cafa", Guards(canary_every=1), **reckless) >= 0.85
    assert left_of("cafa", Guards()) >= 0.85


def test_t3a_moves_no_parameter() -> None:
    assert left_of("t3a", NO_GUARDS) == 1.0
