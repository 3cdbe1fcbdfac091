"""Labels that arrive as feedback reach the steps, over a real socket and in the service itself."""

from __future__ import annotations

import asyncio

import numpy as np

from acclimate.adapters.critic import LABEL, TEMPERATURE
from acclimate.runtime.client import Client
from acclimate.runtime.client import Feedback as SentFeedback
from acclimate.runtime.config import Config
from acclimate.runtime.service import Service
from acclimate.runtime.types import Feedback
from tests.polling import until, until_async
from tests.runtime.rpc.loopback import FEATURES, Loopback, engine
from tests.runtime.rpc.loopback import MODEL as TOY
from tests.runtime.rpc.loopback import serving as listening
from tests.runtime.serving import (
    MODEL,
    PLENTY_FOR_ALL,
    config,
    drifted,
    learnt,
    opened,
    predict,
    reply_bits,
    serving,
    session_of,
)

ROWS, NOISY = 32, 3


def settings(mode: str) -> Config:
    free = {"grpc_port": 0, "http_port": 0}
    # The sensor's fault takes the session far from where it began, and some canaries with it.
    adaptation = {"trust_radius": 5.0, "canary_tolerance": 1.0}
    return Config(server=free, scheduler={"mode": mode}, budget=PLENTY_FOR_ALL, adaptation=adaptation)


def faulty(turn: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples in which some features are noise, and the class that the source gave them before."""
    draws = np.random.default_rng(turn)
    clean = draws.normal(size=(ROWS, FEATURES)).astype(np.float32)
    noise = draws.normal(size=clean.shape).astype(np.float32)
    return np.where(np.arange(FEATURES) < NOISY, noise, clean), engine().frozen(clean).argmax(axis=1)


def accuracy(server: Loopback, recipe: str, *, told: bool, turns: int = 60) -> list[float]:
    """Of each third of the stream, with a label for every second answer or for none."""
    right = []
    with Client.connect(server.target) as client:
        session = client.create_session(TOY, recipe=recipe, recipe_parameters={"lr": 0.03, "beta": 0.0})
        for turn in range(turns):
            samples, truth = faulty(turn)
            answer = session.predict(samples)
            right.append(float((answer.labels == truth).mean()))
            if told:
                labels = [SentFeedback(answer.request_id, int(truth[row]), row) for row in range(0, ROWS, 2)]
                assert client.feedback(TOY, session.id, labels).accepted == ROWS // 2
        assert (session.get().updates > 0) == told
    return [float(np.mean(part)) for part in np.split(np.array(right), 3)]


def test_supervised_improves_on_labels_and_not_without() -> None:
    with listening(settings("synchronous")) as server:
        helped, alone = (accuracy(server, "supervised", told=told) for told in (True, False))
    assert helped[-1] > helped[0] + 0.03
    assert helped[-1] > alone[-1] + 0.1


def test_labels_alone_make_a_step_due_in_the_background() -> None:
    with listening(settings("background")) as server, Client.connect(server.target) as client:
        session = client.create_session(TOY, recipe="supervised")
        samples, truth = faulty(0)
        answer = session.predict(samples)
        until(lambda: session.get().skipped.get("not_selected") == 1, "the step without labels")
        labels = [SentFeedback(answer.request_id, int(label), row) for row, label in enumerate(truth)]
        client.feedback(TOY, session.id, labels)
        until(lambda: session.get().updates == 1, "the step with labels")
        view = session.get()
        assert (view.labelled, view.backward_samples, view.buffered) == (
            ROWS, ROWS, 0,
        )  # fmt: skip


async def stream(service: Service, recipe: str, turns: int, told: int) -> list[tuple[object, ...]]:
    """Replies to a stream of which the first `told` rows of each request are labelled at once."""
    replies = []
    await opened(service, recipe, recipe, batch_rows=ROWS)
    for turn in range(turns):
        samples = drifted(turn, ROWS)
        reply = await predict(service, samples, recipe, request_id=f"r{turn}")
        replies.append(reply_bits(reply)[3:4])
        answered = reply.outputs["logits"].argmax(axis=1)
        # Wrong about every second answer, as a fault of the source would be.
        labels = [Feedback(f"r{turn}", int((answered[row] + row % 2) % 4), row) for row in range(told)]
        if labels:
            await service.feedback(MODEL, recipe, labels)
    return replies


def test_without_feedback_tempo_is_eata_to_the_bit() -> None:
    async def scenario() -> None:
        async with serving() as service:
            assert await stream(service, "tempo", 12, 0) == await stream(service, "eata", 12, 0)
            assert session_of(service, "tempo").account.updates == session_of(service, "eata").account.updates > 0

    asyncio.run(scenario())


def test_feedback_recalibrates_tempos_critic_at_its_turn() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await stream(service, "tempo", 5, 8)
            state = learnt(service, "tempo")
            assert (state[LABEL] >= 0).sum() > 0
            assert state[TEMPERATURE] == 1, "the critic was recalibrated before its turn"
            for turn in range(5, 12):
                await predict(service, drifted(turn, ROWS), "tempo")
            assert learnt(service, "tempo")[TEMPERATURE] > 1

    asyncio.run(scenario())


def test_a_reset_forgets_the_samples_that_wait_for_a_label() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", "supervised", batch_rows=4)
            await predict(service, drifted(0, 4), "s", request_id="r")
            held = (await service.get_session(MODEL, "s")).state_bytes
            await service.reset_session(MODEL, "s")
            assert (await service.get_session(MODEL, "s")).state_bytes == held - drifted(0, 4).nbytes
            await service.feedback(MODEL, "s", [Feedback("r", 1, row) for row in range(4)])
            view = await service.get_session(MODEL, "s")
            assert (view.labelled, view.buffered, view.updates) == (4, 0, 0)

    asyncio.run(scenario())


def test_samples_that_must_not_be_learnt_from_are_not_kept_for_a_label() -> None:
    async def scenario() -> None:
        async with serving(config("background")) as service:
            await opened(service, "s", "supervised", batch_rows=4)
            await predict(service, drifted(0, 4), "s", request_id="r", acclimate_adapt=False)
            await service.feedback(MODEL, "s", [Feedback("r", 1, row) for row in range(4)])
            await predict(service, drifted(1, 4), "s", request_id="q")
            await until_async(lambda: session_of(service, "s").account.skipped.total() == 1, "the step")
            assert session_of(service, "s").account.backward_samples == 0

    asyncio.run(scenario())
