"""The same stream in synchronous mode twice gives the same parameters, answers, budgets and events, bit for bit."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from acclimate.runtime.clock import ManualClock, SystemClock
from acclimate.runtime.engines.onnx import OnnxEngine
from acclimate.runtime.scheduler.costs import calibrated
from acclimate.runtime.types import Budget
from tests.runtime.digits import picture
from tests.runtime.serving import config, differences, opened, predict, reply_bits, serving, whole

ROWS = 16
STREAM = [(n, "noise" if n % 48 < 24 else "contrast") for n in range(144)]


def tight(engine: OnnxEngine) -> Budget:
    """Pays for some of the steps and not for others: samples count as a tenth of a second each."""
    step = calibrated(engine.manifest.cost).estimate(ROWS)
    return Budget(refill_ms_per_s=0.2 * step / (0.1 * ROWS), capacity_ms=1.2 * step)


async def replay(engine: OnnxEngine, recipe: str, clock: Any) -> tuple[list[Any], dict[str, Any], list[Any]]:
    async with serving(config(), engine, clock) as service:
        watch = service.watch("digits", None)
        await opened(service, "camera", recipe, model="digits", budget=tight(engine), batch_rows=ROWS, prior=32)
        answers = []
        for n, weather in STREAM:
            sent = picture(n, 1, weather)
            reply = await predict(service, sent, "camera", request_id=f"r{n}", model="digits")
            answers.append(reply_bits(reply))
        state = whole(service, "camera", "digits")
    return answers, state, [dataclasses.replace(event, at=0.0) async for event in watch]


@pytest.mark.parametrize("recipe", ["norm", "tent", "eata"])
def test_a_replay_repeats_every_bit(recipe: str, digits_engine: OnnxEngine) -> None:
    first = asyncio.run(replay(digits_engine, recipe, ManualClock()))
    # Another clock, and a running one: synchronous mode must not look at it.
    second = asyncio.run(replay(digits_engine, recipe, SystemClock()))
    assert first[0] == second[0]
    assert not differences(first[1], second[1]), differences(first[1], second[1])
    assert first[2] == second[2]
    account = first[1]["account"]
    assert account.updates > 0
    assert account.skipped["budget"] > 0, "the budget never bound; the test shows nothing of it"
