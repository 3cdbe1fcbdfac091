"""A few labels hold what entropy alone loses: tilted digits, about which the model is sure and wrong.

At the pace of `tempo`'s bold steps `eata` first gains and then talks itself out of it; with one label in ten `tempo`
goes on improving. No guards, so that nothing else holds either of them.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from acclimate.examples.digits.corruptions import corrupted
from acclimate.runtime.engines.onnx import OnnxEngine
from acclimate.runtime.types import Feedback
from tests.hostile.test_harm import GUARDS_OFF, ROWS
from tests.runtime.digits import dev
from tests.runtime.serving import config, opened, predict, serving

TURNS, FIFTHS = 60, 5
LR, BOLDNESS = 0.005, 4


async def played(engine: OnnxEngine, recipe: str, told: float, **parameters: float) -> list[float]:
    """Accuracy of each fifth of the stream, with this share of its labels sent as feedback."""
    draws, right = np.random.default_rng(0), []
    async with serving(config(adaptation=GUARDS_OFF), engine) as service:
        await opened(service, "s", recipe, model="digits", batch_rows=ROWS, **parameters)
        for turn in range(TURNS):
            chosen = draws.integers(0, len(dev()), ROWS)
            images = np.stack([corrupted("tilt", image, 0.8, draws) for image in dev().images[chosen]])
            reply = await predict(service, images, "s", model="digits", request_id=f"r{turn}")
            right.append(float((reply.outputs["logits"].argmax(axis=1) == dev().labels[chosen]).mean()))
            labels = [
                Feedback(f"r{turn}", int(dev().labels[chosen[row]]), int(row))
                for row in np.flatnonzero(draws.random(ROWS) < told)
            ]
            if labels:
                await service.feedback("digits", "s", labels)
    return [float(np.mean(part)) for part in np.split(np.array(right), FIFTHS)]


@pytest.mark.slow
def test_one_label_in_ten_keeps_improving_what_entropy_alone_loses_again(digits_engine: OnnxEngine) -> None:
    helped = asyncio.run(played(digits_engine, "tempo", 0.1, lr=LR, boldness=BOLDNESS))
    alone = asyncio.run(played(digits_engine, "eata", 0.0, lr=LR * BOLDNESS, through_statistics=1))
    assert helped[-1] > helped[0] + 0.1
    assert helped[-1] > alone[-1] + 0.1
    assert alone[-1] < max(alone) - 0.04
