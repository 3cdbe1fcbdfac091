"""Our own clients against the daemon: a session's whole life over the wire, watched, measured and repeatable."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from acclimate.runtime.client import AsyncClient, Client
from acclimate.runtime.types import Budget, EventKind
from tests.end_to_end.daemons import Daemon, running
from tests.runtime.digits import dev, picture


def test_a_sessions_life(client: Client) -> None:
    budget = Budget(100.0, 5000.0)
    with client.create_session("digits", recipe="eata", recipe_parameters={"batch_rows": 16}, budget=budget) as session:
        with session.watch() as events:
            for turn in range(4):
                prediction = session.predict(picture(turn, 8, "contrast"), request_id=f"r{turn}")
            assert prediction.logits.shape == (8, 10)
            np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1.0, rtol=1e-5)
            assert (prediction.version, prediction.model, prediction.request_id) == (1, "digits", "r3")
            result = session.feedback("r3", int(prediction.labels[2]), 2)
            assert (result.accepted, result.correct) == (1, 1)
            view = session.get()
            assert (view.requests, view.samples, view.labelled, view.recipe) == (4, 32, 1, "eata")
            assert view.version == 2
            assert view.budget == budget
            assert session.reset().state == "pristine"
            kinds = [next(events).kind for _ in range(4)]
        learnt = {EventKind.APPLIED, EventKind.SKIPPED}
        assert {*kinds[:2]} <= learnt
        assert kinds[2:] == [EventKind.FEEDBACK, EventKind.RESET]
        identity = session.id
    assert identity not in [view.session_id for view in client.list_sessions("digits")]


def test_the_asyncio_client_runs_many_sessions_at_once(daemon: Daemon) -> None:
    async def camera(client: AsyncClient, name: str) -> float:
        session = await client.create_session("digits", name, recipe="norm")
        digits = dev().head(40)
        right = 0
        for image, label in zip(digits.images, digits.labels, strict=True):
            prediction = await session.predict(image, request_id="now")
            right += int(prediction.labels[0] == label)
            await session.feedback("now", int(label))
        view = await session.get()
        assert (view.samples, view.labelled, view.labelled_correct) == (40, 40, right)
        await session.delete()
        return right / 40

    async def scenario() -> list[float]:
        async with AsyncClient(daemon.target) as client:
            return await asyncio.gather(*(camera(client, f"camera-{i}") for i in range(6)))

    accuracies = asyncio.run(scenario())
    assert len(set(accuracies)) == 1, "the same stream gives every session the same answers"
    assert accuracies[0] > 0.9


def test_metrics_move_with_traffic(daemon: Daemon, client: Client) -> None:
    model = ("model", "digits")
    before = daemon.metrics()
    with client.create_session("digits", recipe="tent", recipe_parameters={"batch_rows": 8}) as session:
        during = daemon.metrics()
        for turn in range(3):
            session.predict(picture(turn, 8), request_id=f"r{turn}")
        session.feedback("r0", 3)
        after = daemon.metrics()

    def moved(name: str, *labels: tuple[str, str], since: dict = before) -> float:
        key = (name, tuple(sorted((model, *labels))))
        return after[key] - since[key]

    assert moved("acclimate_samples_total") == 24
    assert moved("acclimate_requests_total", ("code", "OK")) == 3
    assert moved("acclimate_sessions_created_total") == 1
    steps = sum(
        moved("acclimate_adaptation_steps_total", ("outcome", outcome))
        for outcome in ("applied", "skipped", "rolled_back")
    )
    assert steps == 3
    assert moved("acclimate_adaptation_seconds_total") > 0
    assert moved("acclimate_adaptation_backward_samples_total") == 24
    assert moved("acclimate_sessions", ("state", "adapted"), since=during) == 1
    assert moved("acclimate_sessions", ("state", "pristine"), since=during) == -1
    assert moved("acclimate_request_duration_seconds_count") == 3


def test_two_daemons_given_the_same_stream_learn_the_same(bundle_path: Path, daemon: Daemon) -> None:
    def final(target: str) -> bytes:
        with Client(target) as client, client.create_session("digits", recipe="eata") as session:
            for turn in range(6):
                session.predict(picture(turn, 16, "contrast"))
            assert session.get().version == 3
            return session.predict(picture(50, 16), adapt=False).logits.tobytes()

    with running(bundle_path, synchronous=True) as other:
        assert final(daemon.target) == final(other.target)
