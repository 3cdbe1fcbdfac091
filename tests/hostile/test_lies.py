"""Feedback that lies, on the digits bundle: every sample of a stream is labelled with the class after its own.

As in `test_harm.py`, judged on digits that are never streamed; guards let at most 2
points be lost, and the same lies without guards do lasting damage.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from acclimate.runtime.engines.onnx import OnnxEngine
from acclimate.runtime.types import Feedback
from tests.hostile.test_harm import BOUND, GUARDS_ALWAYS, GUARDS_OFF, RECKLESS, STREAMED, digits_to_judge_by
from tests.runtime.digits import dev
from tests.runtime.serving import config, opened, predict, serving

ROWS, STEPS = 32, 14
DAMAGE = 0.3


async def lied_to(engine: OnnxEngine, recipe: str, guards: dict[str, Any], **parameters: float) -> tuple[float, int]:
    """Accuracy lost on clean digits, and roll-backs."""
    images, labels = digits_to_judge_by()
    draws = np.random.default_rng(0)
    async with serving(config(adaptation=guards), engine) as service:
        await opened(service, "s", recipe, model="digits", batch_rows=ROWS, **parameters)
        for turn in range(STEPS):
            chosen = draws.integers(0, STREAMED, ROWS)
            await predict(service, dev().images[chosen], "s", model="digits", request_id=f"r{turn}")
            lies = [Feedback(f"r{turn}", int(label + 1) % 10, row) for row, label in enumerate(dev().labels[chosen])]
            assert (await service.feedback("digits", "s", lies)).accepted == ROWS
        served = (await predict(service, images, "s", model="digits", acclimate_adapt=False)).outputs["logits"]
        view = await service.get_session("digits", "s")
    frozen = float((engine.frozen(images).argmax(axis=1) == labels).mean())
    return frozen - float((served.argmax(axis=1) == labels).mean()), view.rollbacks


RECIPES = ["supervised", pytest.param("tempo", marks=pytest.mark.slow)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_with_the_defaults_lies_cost_little(digits_engine: OnnxEngine, recipe: str) -> None:
    lost, _ = asyncio.run(lied_to(digits_engine, recipe, {}))
    assert lost <= BOUND


@pytest.mark.parametrize("recipe", RECIPES)
def test_guards_hold_reckless_lies_and_say_so(digits_engine: OnnxEngine, recipe: str) -> None:
    lost, rollbacks = asyncio.run(lied_to(digits_engine, recipe, GUARDS_ALWAYS, **RECKLESS))
    assert lost <= BOUND
    assert rollbacks > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_without_guards_the_same_lies_do_lasting_damage(digits_engine: OnnxEngine, recipe: str) -> None:
    """Or the tests above would show nothing."""
    lost, rollbacks = asyncio.run(lied_to(digits_engine, recipe, GUARDS_OFF, **RECKLESS))
    assert rollbacks == 0
    assert lost >= DAMAGE
