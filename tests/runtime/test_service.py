"""What requests do to sessions: sequences, answers, feedback; and that a refused request does nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest

from acclimate.runtime.engines.reference import reference_engine
from acclimate.runtime.errors import AcclimateError, FailedPrecondition, InvalidArgument, NotFound
from acclimate.runtime.types import EventKind, Feedback, FeedbackResult, InferRequest
from tests.runtime.serving import (
    MODEL,
    config,
    differences,
    drifted,
    opened,
    predict,
    request,
    serving,
    session_of,
    whole,
)

GOOD = drifted(0, 2)
NAN = GOOD.copy()
NAN[1, 3] = np.nan


def test_stateless_and_pristine_requests_get_the_frozen_models_answer() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", "tent")
            for name in (None, "s"):
                reply = await predict(service, GOOD, name, request_id="mine")
                np.testing.assert_array_equal(reply.outputs["logits"], reference_engine().frozen(GOOD))
                assert (reply.id, reply.model, reply.version) == ("mine", MODEL, "1")
                assert reply.parameters["acclimate_version"] == 0
                assert reply.parameters.get("acclimate_session") == name
            assert (await predict(service, GOOD)).id != (await predict(service, GOOD)).id != ""

    asyncio.run(scenario())


def test_an_adapted_session_answers_with_its_own_parameters() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", "tent", batch_rows=4, lr=0.05)
            for n in range(8):
                await predict(service, drifted(n, 2), "s")
            reply = await predict(service, GOOD, "s", acclimate_adapt=False)
            session = session_of(service, "s")
            assert reply.parameters["acclimate_version"] == session.version == 4
            mine = reference_engine().predict(GOOD, session.folded)
            np.testing.assert_array_equal(reply.outputs["logits"], mine)
            assert not np.array_equal(mine, reference_engine().frozen(GOOD))
            assert len(session.buffer) == 0, "acclimate_adapt=false keeps samples out of the buffer"

    asyncio.run(scenario())


@pytest.mark.parametrize("given", [7, "7", 2**64 - 1, "camera-1"])
def test_a_sequence_is_a_session(given: int | str) -> None:
    async def scenario() -> None:
        async with serving() as service:
            started: dict[str, Any] = {"sequence_id": given, "sequence_start": True, "acclimate_recipe": "norm"}
            await service.infer(request(GOOD, **started))
            view = await service.get_session(MODEL, str(given))
            assert (view.recipe, view.requests, view.samples) == ("norm", 1, 2)
            await service.infer(request(GOOD, sequence_id=given))
            await service.infer(request(GOOD, **started))
            again = await service.get_session(MODEL, str(given))
            assert (again.requests, again.buffered, again.version) == (3, 2, 1), "a second start resets"
            await service.infer(request(GOOD, sequence_id=given, sequence_end=True))
            with pytest.raises(NotFound):
                await service.get_session(MODEL, str(given))

    asyncio.run(scenario())


def test_the_end_of_a_sequence_leaves_a_created_session_open() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", "norm")
            await predict(service, GOOD, "s", sequence_start=True, sequence_end=True)
            assert (await service.get_session(MODEL, "s")).version == 1

    asyncio.run(scenario())


REFUSED: dict[str, tuple[InferRequest, type[AcclimateError], str]] = {
    "unknown model": (request(GOOD, "s", model="digits"), NotFound, "MODEL_NOT_FOUND"),
    "unknown version": (dataclasses.replace(request(GOOD, "s"), version="2"), NotFound, "MODEL_VERSION_NOT_FOUND"),
    "unknown session": (request(GOOD, "nobody"), NotFound, "SESSION_NOT_FOUND"),
    "unknown output": (dataclasses.replace(request(GOOD, "s"), outputs=("probs",)), InvalidArgument, "OUTPUT_UNKNOWN"),
    "no input": (dataclasses.replace(request(GOOD, "s"), inputs={}), InvalidArgument, "INPUTS_MISMATCH"),
    "another input besides": (
        dataclasses.replace(request(GOOD, "s"), inputs={"features": GOOD, "mask": GOOD}),
        InvalidArgument,
        "INPUTS_MISMATCH",
    ),
    "wrong dtype": (request(GOOD.astype(np.float64), "s"), InvalidArgument, "DATATYPE_MISMATCH"),
    "an odd dtype": (request(GOOD.astype(np.complex64), "s"), InvalidArgument, "DATATYPE_MISMATCH"),
    "wrong width": (request(GOOD[:, :7], "s"), InvalidArgument, "SHAPE_MISMATCH"),
    "wrong rank": (request(GOOD[0], "s"), InvalidArgument, "SHAPE_MISMATCH"),
    "no rows": (request(GOOD[:0], "s"), InvalidArgument, "SHAPE_MISMATCH"),
    "too many rows": (request(drifted(0, 513), "s"), InvalidArgument, "SHAPE_MISMATCH"),
    "NaN": (request(NAN, "s"), InvalidArgument, "VALUE_NOT_FINITE"),
    "infinity": (request(GOOD * np.float32(np.inf), "s"), InvalidArgument, "VALUE_NOT_FINITE"),
    "misspelt parameter": (request(GOOD, "s", sequence_stop=True), InvalidArgument, "PARAMETER_UNKNOWN"),
    "start as a number": (request(GOOD, "s", sequence_start=1), InvalidArgument, "PARAMETER_TYPE"),
    "adapt as a text": (request(GOOD, "s", acclimate_adapt="no"), InvalidArgument, "PARAMETER_TYPE"),
    "id as a float": (request(GOOD, sequence_id=float("nan")), InvalidArgument, "PARAMETER_TYPE"),
    "id as a bool": (request(GOOD, sequence_id=True), InvalidArgument, "PARAMETER_TYPE"),
    "start without an id": (request(GOOD, sequence_start=True), InvalidArgument, "SEQUENCE_ID_MISSING"),
    "end without an id": (request(GOOD, sequence_id=0, sequence_end=True), InvalidArgument, "SEQUENCE_ID_MISSING"),
    "recipe without start": (request(GOOD, "s", acclimate_recipe="tent"), InvalidArgument, "RECIPE_WITHOUT_START"),
    "another recipe at start": (
        request(GOOD, "s", sequence_start=True, acclimate_recipe="norm"),
        FailedPrecondition,
        "RECIPE_MISMATCH",
    ),
    "unknown recipe at start": (
        request(GOOD, "new", sequence_start=True, acclimate_recipe="entropia"),
        InvalidArgument,
        "RECIPE_INVALID",
    ),
    "impossible id at start": (request(GOOD, "a b", sequence_start=True), InvalidArgument, "SESSION_ID_INVALID"),
    "bad tensor with a start": (request(NAN, "s", sequence_start=True), InvalidArgument, "VALUE_NOT_FINITE"),
    "bad tensor with a new start": (request(NAN, "new", sequence_start=True), InvalidArgument, "VALUE_NOT_FINITE"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_request_changes_nothing(case: str) -> None:
    async def scenario() -> None:
        refused, error, reason = REFUSED[case]
        async with serving() as service:
            await opened(service, "s", "tent", batch_rows=4)
            for n in range(5):
                await predict(service, drifted(n), "s", request_id=f"r{n}")
            before, listed = whole(service, "s"), await service.list_sessions(None, 0, "")
            with pytest.raises(error) as caught:
                await service.infer(refused)
            assert caught.value.reason == reason
            assert not differences(before, whole(service, "s"))
            assert await service.list_sessions(None, 0, "") == listed

    asyncio.run(scenario())


def test_labels_are_counted_once_and_only_for_remembered_answers() -> None:
    async def scenario() -> None:
        async with serving(config(sessions={"remembered_answers": 2})) as service:
            await opened(service, "s", "source")
            answers = {}
            for n in range(3):
                reply = await predict(service, drifted(n, 2), "s", request_id=f"r{n}")
                answers[f"r{n}"] = reply.outputs["logits"].argmax(axis=1)
            right, wrong = int(answers["r1"][0]), (int(answers["r2"][1]) + 1) % 4
            labels = [Feedback("r1", right), Feedback("r2", wrong, 1), Feedback("r0", 0), Feedback("r0", 0, 1)]
            assert await service.feedback(MODEL, "s", labels) == FeedbackResult(2, 1, ("r0",))
            assert await service.feedback(MODEL, "s", labels) == FeedbackResult(0, 0, ("r1", "r2", "r0"))
            view = await service.get_session(MODEL, "s")
            assert (view.labelled, view.labelled_correct) == (2, 1)
            model = service.snapshot().models[0]
            assert (model.labelled, model.labelled_correct) == (2, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Feedback("r0", 4), "LABEL_OUT_OF_RANGE"),
        (Feedback("r0", -1), "LABEL_OUT_OF_RANGE"),
        (Feedback("r0", 0, 2), "ROW_OUT_OF_RANGE"),
        (Feedback("r0", 0, -1), "ROW_OUT_OF_RANGE"),
        (Feedback("r1", 1), "LABEL_REPEATED"),
    ],
)
def test_one_bad_label_refuses_them_all(bad: Feedback, reason: str) -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", "source")
            for n in range(2):
                await predict(service, drifted(n, 2), "s", request_id=f"r{n}")
            before = whole(service, "s")
            with pytest.raises(InvalidArgument) as refused:
                await service.feedback(MODEL, "s", [Feedback("r1", 0), bad])
            assert refused.value.reason == reason
            assert not differences(before, whole(service, "s"))

    asyncio.run(scenario())


def test_a_reset_forgets_what_was_learnt_and_keeps_the_counters() -> None:
    async def scenario() -> None:
        async with serving() as service:
            await opened(service, "s", "eata", batch_rows=4, margin_ratio=1.0, epsilon=1.0)
            await opened(service, "fresh", "eata", batch_rows=4, margin_ratio=1.0, epsilon=1.0)
            for n in range(6):
                await predict(service, drifted(n), "s")
            before = await service.get_session(MODEL, "s")
            events = service.watch(MODEL, "s")
            after = await service.reset_session(MODEL, "s")
            assert (before.state, before.updates, before.buffered) == ("adapted", 1, 2)
            assert (after.state, after.updates, after.buffered) == ("pristine", 1, 0)
            assert (after.version, after.theta_distance) == (before.version + 1, 0.0)
            pristine, own = whole(service, "fresh"), whole(service, "s")
            rows = [name for name in own if name.startswith("row.") and "budget" not in name]
            assert rows
            assert all(own[name] == pristine[name] for name in rows)
            assert (await anext(events)).kind is EventKind.RESET

    asyncio.run(scenario())


def test_a_buffer_that_overflows_loses_the_oldest_samples_and_counts_them() -> None:
    async def scenario() -> None:
        async with serving(config("synchronous", sessions={"buffer_rows": 8})) as service:
            await opened(service, "s", "tent", batch_rows=8)
            await predict(service, drifted(0, 5), "s")
            await predict(service, drifted(1, 7), "s")
            assert service.snapshot().models[0].dropped == 4
            assert session_of(service, "s").account.updates == 1

    asyncio.run(scenario())
