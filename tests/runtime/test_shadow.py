"""Answers of adapted sessions beside the frozen model's: what is compared, what is counted, and what is left alone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.figures import ComparisonFigures
from acclimate.runtime.service import Service
from acclimate.runtime.types import Feedback
from tests.polling import until_async as until
from tests.runtime.serving import MODEL, config, drifted, opened, predict, serving, session_of, whole

ROWS = 32
GUARDS_OFF = {"canary_every": 0, "collapse_ratio": 0.0, "trust_radius": 1e9}


def figures(service: Service) -> ComparisonFigures:
    return service.snapshot().models[0].comparison


async def compared(service: Service, samples: int) -> ComparisonFigures:
    await until(lambda: figures(service).samples >= samples, "samples were compared")
    return figures(service)


async def adapt(service: Service, name: str = "s", lr: float = 0.01) -> None:
    await opened(service, name, "tent", lr=lr)
    for turn in range(4):
        await predict(service, drifted(turn, ROWS), name, request_id=f"{name}-{turn}")


def test_what_is_counted_is_what_the_two_models_answer() -> None:
    async def scenario() -> None:
        engine = reference_engine()
        async with serving(config(metrics={"shadow_every": 0}, adaptation=GUARDS_OFF), engine) as service:
            await adapt(service, lr=0.5)
            service._parts.shadow._every = 1
            inputs = drifted(100, ROWS)
            adapted = (await predict(service, inputs, "s", request_id="r", acclimate_adapt=False)).outputs["logits"]
            frozen = engine.frozen(inputs)
            found = await compared(service, ROWS)
            threshold = engine.manifest.calibration.confidence_threshold
            assert found.samples == ROWS
            assert found.disagreed == int((adapted.argmax(axis=1) != frozen.argmax(axis=1)).sum()) > 0
            assert found.confident == {
                name: int((np.exp(z - z.max(1, keepdims=True)).sum(1) < 1 / threshold).sum())
                for name, z in (("adapted", adapted), ("frozen", frozen))
            }
            labels = frozen.argmax(axis=1)
            await service.feedback(MODEL, "s", [Feedback("r", int(label), row) for row, label in enumerate(labels)])
            found = figures(service)
            assert found.labelled == ROWS
            assert found.correct == {"adapted": ROWS - found.disagreed, "frozen": ROWS}

    asyncio.run(scenario())


@pytest.mark.parametrize(("every", "requests", "samples"), [(0, 40, 0), (8, 40, 5), (1000, 40, 0)])
def test_one_of_so_many_samples_is_compared(every: int, requests: int, samples: int) -> None:
    async def scenario() -> None:
        async with serving(config(metrics={"shadow_every": every})) as service:
            await adapt(service)
            await until(lambda: service._parts.shadow._task is None, "nothing is compared")
            before, service._parts.shadow._waiting = figures(service).samples, 0
            for turn in range(requests):
                await predict(service, drifted(turn), "s", acclimate_adapt=False)
                await until(lambda: service._parts.shadow._task is None, "nothing is compared")
            assert figures(service).samples - before == samples

    asyncio.run(scenario())


def test_frozen_answers_are_not_compared_and_comparing_changes_no_session() -> None:
    async def scenario() -> None:
        states = []
        for every in (0, 1):
            async with serving(config(metrics={"shadow_every": every})) as service:
                await opened(service, "frozen", "source")
                await predict(service, drifted(0), "frozen")
                await predict(service, drifted(0))
                assert figures(service).samples == 0
                await adapt(service)
                if every:
                    assert (await compared(service, 1)).samples > 0
                states.append(whole(service, "s"))
                assert session_of(service, "s").version > 0
        assert states[0] == states[1]

    asyncio.run(scenario())
